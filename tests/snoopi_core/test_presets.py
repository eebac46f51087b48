"""The table of presets, on which saved workflows and the help page rely."""

from __future__ import annotations

from pathlib import Path

import pytest

from snoopi_core.presets import ARCHITECTURES, PRESETS, find_preset, presets_for

HELP = Path(__file__).resolve().parents[2] / "web" / "docs" / "SnoopiOneStepSampler.md"
OUTPUTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow": "flow", None: "the model's own"}
SWEPT = "alpha 0 to 1"  # the paper gives SDXL-DMD2 no single alpha


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_the_help_page_says_what_the_table_says(preset):
    items = [" ".join(item.split()) for item in HELP.read_text("utf-8").split("\n- ")]
    (item,) = [item for item in items if item.startswith(f"**{preset.name}** (")]
    level = "" if preset.alpha_T_squared is None else f", alpha_T^2 = {preset.alpha_T_squared}"
    alpha = "no alpha published" if preset.nasa_alpha is None else f"alpha {preset.nasa_alpha:g}"
    *listed, verified = item.partition(": ")[2].split("; ")
    assert item.startswith(f"**{preset.name}** ({', '.join(preset.architectures)}): ")
    assert listed == [
        ", ".join(map(str, preset.timesteps)) + level,
        f"{preset.noise}, {preset.steps}",
        OUTPUTS[preset.prediction_type],
        SWEPT if preset.name.startswith("SDXL-DMD2") else alpha,
    ]
    assert verified


def test_names_are_unique_and_found():
    assert len({preset.name for preset in PRESETS}) == len(PRESETS)
    assert all(find_preset(preset.name) is preset for preset in PRESETS)
    assert find_preset("auto") is None


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"preset 'DMD3' is not known; available: auto, PG-SB SD1.5, "):
        find_preset("DMD3")


def test_every_kind_of_model_has_presets():
    listed = [name for architecture in ARCHITECTURES for name in presets_for(architecture)]
    assert set(listed) == {preset.name for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_timesteps_decrease_and_are_on_the_schedule(preset):
    last = 1000 if preset.prediction_type == "flow" else 999
    assert list(preset.timesteps) == sorted(set(preset.timesteps), reverse=True)
    assert preset.timesteps[-1] >= 0 and preset.timesteps[0] <= last
