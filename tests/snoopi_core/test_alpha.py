"""The paper's strengths by kind of model, and that the help page shows them."""

from __future__ import annotations

from pathlib import Path

from snoopi_core.alpha import PRESETS_OF_KIND, paper_alphas
from snoopi_core.presets import PRESETS, find_preset


def test_in_words():
    assert paper_alphas("SD1.5") == "0.04 (PG-SB SD1.5, DMD2 SD1.5), 0.19 (InstaFlow-0.9B)"
    assert paper_alphas("SDXL") == "0.0 to 1.0 by prompt (SDXL-DMD2)"
    assert paper_alphas("Wan") is None and paper_alphas(None) is None


def test_every_preset_with_an_alpha_has_its_kind():
    named = {name for names in PRESETS_OF_KIND.values() for name in names}
    values = {preset.name for preset in PRESETS if preset.nasa_alpha is not None}
    assert named <= values
    assert {find_preset(name).nasa_alpha for name in values - named} <= {find_preset(name).nasa_alpha for name in named}


def test_the_help_page_shows_them(pack_root: Path):
    page = (pack_root / "web" / "docs" / "SnoopiNASAApply.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for names in PRESETS_OF_KIND.values():
        for name in names:
            preset = find_preset(name)
            shown = name.split(",")[0]
            assert any(shown in row and f"| {preset.nasa_alpha:.2f} |" in row for row in rows), name
