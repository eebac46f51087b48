"""The gallery page of the bundled student."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.avatars.world import AVATARS
from scripts.pictures.gallery import main


@pytest.mark.full
def test_it_shows_each_pair_without_and_with_its_negative(tmp_path: Path) -> None:
    assert main(["--count", "2", "--out", str(tmp_path / "new" / "gallery.html")]) == 0
    page = (tmp_path / "new" / "gallery.html").read_text(encoding="utf-8")
    assert page.count("<figure") == page.count("data:image/png") == 4 * len(AVATARS.fixed)
    assert "http" not in page
    for pair in AVATARS.fixed:
        assert page.count(f"<i>{pair.prompt}, negative: {pair.negative}</i>") == 2
        assert f"<h2>{pair.prompt}, negative: {pair.negative}</h2><p>Seen in " in page
