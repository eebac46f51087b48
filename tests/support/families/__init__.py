"""Small models of the families beyond UNets: `case("Wan 2.1 I2V")`; see base.Case for what one can do.

    base, formula   shared code: the host's model, its sampling, the formula in fp64
    contract        the tests that every family has to pass
    refused         models that NASA does not steer

PixArt's can be imported directly: `families.pixart.pixart("alpha-512")` gives the host's model and its reference,
`random_pixart` diffusers' network, `to_original` the names of its weights in the host.
Its latents have a side of 34 (`SIDE`): the host cannot place fewer than 33.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import comfy.supported_models as supported

from .ace_step import ace_step, ace_step_15
from .base import Case, Condition, conditioning, failing
from .cosmos import anima, predict2
from .formula import Subtraction
from .hunyuan_dit import hunyuan_dit
from .kandinsky5 import kandinsky5
from .ltx2 import ltx2
from .ltxv import ltxv
from .pixart import pixart
from .stable_audio import stable_audio
from .unet import sd15
from .wan import i2v, t2v
from .wan_variants import VARIANTS, variant

__all__ = ["BESIDE", "CASES", "VARIANTS", "Case", "Condition", "Subtraction", "case", "conditioning", "failing"]

CASES: dict[str, Callable[[], Case]] = {
    "UNet SD1.5": sd15,
    "PixArt-alpha 512": lambda: pixart("alpha-512"),
    "PixArt-alpha 1024": lambda: pixart("alpha-1024"),
    "PixArt-sigma": lambda: pixart("sigma"),
    "Wan 2.1 T2V": t2v,
    "Wan 2.1 I2V": i2v,
    "HunyuanDiT 1.1": lambda: hunyuan_dit("1.1"),
    "HunyuanDiT 1.2": hunyuan_dit,
    "LTXV": ltxv,
    "Cosmos-Predict2": predict2,
    "Anima": anima,
    "LTXV, modulated text": functools.partial(ltxv, modulated=True),
    "LTX-2": functools.partial(ltx2, "LTX-2"),
    "LTX-2.3": functools.partial(ltx2, "LTX-2.3"),
    "Kandinsky 5 image": functools.partial(kandinsky5, "image"),
    "Kandinsky 5 video": functools.partial(kandinsky5, "video"),
    "Stable Audio 1": functools.partial(stable_audio, "1"),
    **({"Stable Audio 3": functools.partial(stable_audio, "3")} if hasattr(supported, "StableAudio3") else {}),
    "ACE-Step 1": ace_step,
    "ACE-Step 1.5": ace_step_15,
    **{name: functools.partial(variant, name) for name in VARIANTS},
}


BESIDE = [
    "PixArt-alpha 512",
    "PixArt-sigma",
    "HunyuanDiT 1.1",
    *list(CASES)[list(CASES).index("LTXV, modulated text") :],
]
"""Rows whose full contract runs in the full run only."""


def case(name: str) -> Case:
    """The case of a row of the compatibility table, made once for a whole test run."""
    return CASES[name]()
