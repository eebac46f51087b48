"""Sampling settings of published one-step models (SNOOPI, Section 6, and the models' own code).

alpha_t and sigma_t are the variance-preserving pair of x_t = alpha_t x0 + sigma_t eps, z is noise of unit variance.

noise, the network's input at the first timestep:
    unit         z
    scheduled    sigma_T z, the noise in x_T according to the schedule
steps, from the x0 of one timestep to the network's input at the next:
    consistency  x_t' = alpha_t' x0 + sigma_t' z', with fresh noise z'; the last x0 is the result
    euler        Euler step of the probability-flow ODE, no fresh noise; the last x0 is the result
    tcd          as consistency, through x_s = alpha_s x0 + sigma_s eps at s = 0; the result is x_s, which still has a
                 little noise
prediction_type: epsilon, v_prediction and sample as in diffusers; flow is v = x0 - z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Noise = Literal["unit", "scheduled"]
Steps = Literal["consistency", "euler", "tcd"]
PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
Architecture = Literal["SD1/SD2", "SDXL", "PixArt"]

AUTO = "auto"
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of the table. Saved workflows contain `name`, so names never change.

    Args:
        prediction_type: None for the model's own, which a LoRA's student has from its base.
        alpha_T_squared: of the first timestep, if the model was trained with a value that its schedule does not have.
        nasa_alpha: the strength that the paper uses with this model (its Table 8).
    """

    name: str
    architectures: tuple[Architecture, ...]
    timesteps: tuple[int, ...]
    prediction_type: PredictionType | None
    noise: Noise
    steps: Steps
    nasa_alpha: float | None = None
    alpha_T_squared: float | None = None


_SD, _XL, _PIXART, _UNETS = ("SD1/SD2",), ("SDXL",), ("PixArt",), ("SD1/SD2", "SDXL")
_2_STEPS, _4_STEPS, _8_STEPS = (999, 499), (999, 749, 499, 249), (999, 874, 749, 624, 499, 374, 249, 124)

# fmt: off
PRESETS: tuple[Preset, ...] = (
    Preset("PG-SB SD1.5",             _SD,     (999,),               "epsilon",      "unit",      "consistency", 0.04),
    Preset("PG-SB SD2.1",             _SD,     (999,),               "epsilon",      "unit",      "consistency", 0.30),
    Preset("PG-SB PixArt, 999",       _PIXART, (999,),               "epsilon",      "unit",      "consistency", 0.80,
           alpha_T_squared=0.0047),
    Preset("PG-SB PixArt, 400",       _PIXART, (400,),               "epsilon",      "unit",      "consistency", 0.80),
    Preset("PG-SB SDXL",              _XL,     (999,),               None,           "unit",      "consistency"),
    Preset("PG-SB, 2 steps",  ARCHITECTURES,   _2_STEPS,             None,           "unit",      "consistency"),
    Preset("PG-SB, 4 steps",  ARCHITECTURES,   _4_STEPS,             None,           "unit",      "consistency"),
    Preset("SwiftBrush",              _SD,     (999,),               "epsilon",      "unit",      "consistency",
           alpha_T_squared=0.0047),
    Preset("SwiftBrush v2",           _SD,     (999,),               "epsilon",      "unit",      "consistency", 0.30),
    Preset("DMD2 SD1.5",              _SD,     (999,),               "epsilon",      "unit",      "consistency", 0.04),
    Preset("SDXL-DMD2, 1 step",       _XL,     (399,),               "epsilon",      "unit",      "consistency"),
    Preset("SDXL-DMD2, 4 steps",      _XL,     _4_STEPS,             "epsilon",      "unit",      "consistency"),
    Preset("PixArt-DMD",              _PIXART, (400,),               "epsilon",      "unit",      "consistency", 0.45),
    Preset("YOSO-PixArt",             _PIXART, (999,),               "v_prediction", "unit",      "consistency", 0.20),
    Preset("InstaFlow-0.9B",          _SD,     (1000,),              "flow",         "unit",      "euler",       0.19),
    Preset("SD-Turbo, 1 step",        _SD,     (999,),               "epsilon",      "scheduled", "euler"),
    Preset("SD-Turbo, 4 steps",       _SD,     _4_STEPS,             "epsilon",      "scheduled", "euler"),
    Preset("SDXL-Turbo, 1 step",      _XL,     (999,),               "epsilon",      "scheduled", "euler"),
    Preset("SDXL-Lightning, 1 step",  _XL,     (999,),               "sample",       "scheduled", "euler"),
    Preset("SDXL-Lightning, 2 steps", _XL,     _2_STEPS,             "epsilon",      "scheduled", "euler"),
    Preset("SDXL-Lightning, 4 steps", _XL,     _4_STEPS,             "epsilon",      "scheduled", "euler"),
    Preset("SDXL-Lightning, 8 steps", _XL,     _8_STEPS,             "epsilon",      "scheduled", "euler"),
    Preset("LCM-LoRA, 4 steps",       _UNETS,  (999, 759, 499, 259), "epsilon",      "unit",      "consistency"),
    Preset("Hyper-SDXL UNet, 1 step", _XL,     (800,),               "epsilon",      "unit",      "consistency"),
    Preset("Hyper-SD LoRA, 1 step",   _UNETS,  (800,),               "epsilon",      "unit",      "tcd"),
    Preset("SiD-LSG",                 _SD,     (625,),               "epsilon",      "scheduled", "consistency"),
)
# fmt: on
_BY_NAME = {preset.name: preset for preset in PRESETS}


def find_preset(name: str) -> Preset | None:
    """The preset of this name; None for "auto".

    Raises:
        ValueError: unknown name.
    """
    if name == AUTO:
        return None
    if name not in _BY_NAME:
        raise ValueError(f"preset {name!r} is not known; available: {AUTO}, {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def presets_for(architecture: Architecture) -> list[str]:
    """Names of the presets for a kind of model, in the order of the table."""
    return [preset.name for preset in PRESETS if architecture in preset.architectures]
