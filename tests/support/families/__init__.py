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

from .base import Case, Condition, conditioning, failing
from .cosmos import anima, predict2
from .formula import Subtraction
from .hunyuan_dit import hunyuan_dit
from .ltxv import ltxv
from .pixart import pixart
from .wan import i2v, t2v
from .wan_variants import VARIANTS, variant

__all__ = ["BESIDE", "CASES", "Case", "Condition", "Subtraction", "case", "conditioning", "failing"]

CASES: dict[str, Callable[[], Case]] = {
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
    **{name: functools.partial(variant, name) for name in VARIANTS},
}


BESIDE = [*VARIANTS]
"""Rows whose full contract runs in the full run only."""


def case(name: str) -> Case:
    """The case of a row of the compatibility table, made once for a whole test run."""
    return CASES[name]()
