"""The paper's strengths by kind of model, also on the help page, and parsing of typed strengths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snoopi_core.guidance.alpha import PRESETS_BY_KIND, describe_paper_alphas, parse_alphas, parse_sweep
from snoopi_core.guidance.methods import NASA
from snoopi_core.presets import PRESETS, find_preset


def test_in_words():
    assert describe_paper_alphas("SD1.5") == "0.04 (PG-SB SD1.5, DMD2 SD1.5), 0.19 (InstaFlow-0.9B)"
    assert describe_paper_alphas("SDXL") == "0.0 to 1.0 by prompt (SDXL-DMD2)"
    assert describe_paper_alphas("Wan") is None and describe_paper_alphas(None) is None


def test_every_preset_with_an_alpha_has_its_kind():
    named = {name for names in PRESETS_BY_KIND.values() for name in names}
    values = {preset.name for preset in PRESETS if preset.nasa_alpha is not None}
    assert named <= values
    assert {find_preset(name).nasa_alpha for name in values - named} <= {find_preset(name).nasa_alpha for name in named}


def test_the_help_page_shows_them(pack_root: Path):
    page = (pack_root / "web" / "docs" / "SnoopiNASAApply.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for names in PRESETS_BY_KIND.values():
        for name in names:
            preset = find_preset(name)
            shown = name.split(",")[0]
            assert any(shown in row and f"| {preset.nasa_alpha:.2f} |" in row for row in rows), name


@pytest.mark.parametrize(
    ("text", "alphas"),
    [
        ("0", (0.0,)),
        ("0, 0.25, 0.5, 1", (0.0, 0.25, 0.5, 1.0)),
        (" 1 .5,0 ", (1.0, 0.5, 0.0)),
        ("0..1 step 0.25", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("0 .. 0.3 STEP .1", (0.0, 0.1, 0.2, 0.3)),
        ("0.1..0.35 step 0.1", (0.1, 0.2, 0.3)),
        ("0.5..0.5 step 1", (0.5,)),
        ("0..3.1 step 0.1", tuple(number / 10 for number in range(32))),
    ],
)
def test_alphas_that_are_typed(text, alphas):
    assert parse_alphas(text) == alphas


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "alphas is empty"),
        (" , ", "alphas is empty"),
        ("0, a lot", "'a' is not a number"),
        ("-1", "'-1' is not a number"),
        ("nan", "'nan' is not a number"),
        ("1e5", "'1e5' is not a number"),
        ("0..1", 'has no step: for a range write "0..1 step 0.25"'),
        ("0 to 1", 'has no step: for a range write "0..1 step 0.25"'),
        (".5-2", 'has no step: for a range write ".5..2 step 0.25"'),
        ("0..1 step 0", "the range must increase"),
        ("1..0 step 0.1", "the range must increase"),
        ("0, 5", "5 is too large"),
        ("0..5 step 1", "5 is too large"),
        ("0 " * 33, "are 33 pictures, at most 32"),
        ("0..4 step 0.000001", "are 4000001 pictures, at most 32"),
        ("9" * 5000, "is not a number"),
        ("0,1, 0,2", "0 appears 2 times"),
        ("0,25", "25 is too large"),
        ("0;5", "'0;5' is not a number"),
    ],
)
def test_invalid_alphas(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_alphas(text)
    assert '"0, 0.25, 0.5, 1", or a range, for example "0..1 step 0.25"' in str(caught.value)
    assert 'write decimals with a point, "0.5" and not "0,5"' in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_sweep_of_methods():
    assert [(method.name, alpha) for method, alpha in parse_sweep("0, 0.5; NAG: 2..4 step 2;vsf:1")] == [
        *(("NASA", 0.0), ("NASA", 0.5)),
        *(("NAG", 2.0), ("NAG", 4.0)),
        ("VSF", 1.0),
    ]
    assert parse_sweep("0, 0.25") == parse_sweep("0, 0.25;") == ((NASA, 0.0), (NASA, 0.25))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NASA: 0; CFG: 2", "'CFG' is not a method; available: NASA, NAG, VSF, orthogonal"),
        ("NASA: 5", "5 is too large; expected numbers from 0 to 4"),
        ("NAG: 30", "30 is too large; expected numbers from 0 to 20"),
        (" ; ", "is not a number"),
        ("NASA 0, 1; NAG: 2", "write a colon after the method"),
        ("NASA: 0..3 step 0.1; NAG: 1..9 step 1", "are 40 pictures"),
    ],
)
def test_a_wrong_sweep_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_sweep(text)
