"""The script of `make demo`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from live_pack import ROOT
from PIL import Image

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.full]


def test_the_demo_writes_its_picture_and_prints_its_path() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"picture: {ROOT / 'out' / 'demo.png'}" in done.stdout
    assert re.search(r"one picture, from text to file: \d\.\d+ s", done.stdout)
    assert re.findall(r"(\d) of 5: .* pictures each \(\d+ s\)", done.stdout) == list("12345")
    rates = re.search(r"Unwanted thing gone: (\d+)% of the pictures without, (\d+)% with the negative", done.stdout)
    assert rates is not None, done.stdout
    assert int(rates[2]) >= int(rates[1]) + 30
    with Image.open(ROOT / "out" / "demo.png") as picture:
        assert picture.width >= 1200
