"""Small models of joint attention: `joint_case("Flux")`, and their registry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..base import Case

JOINT_CASES: dict[str, Callable[[], Case]] = {}
_LISTS = (
    "single_blocks",
    "single_layers",
    "joint_blocks",
    "transformer_blocks",
    "layers",
    "patch_blocks",
    "double_blocks",
    "blocks",
)


@dataclass(frozen=True, kw_only=True)
class JointCase(Case):
    most_rows: int = 2

    def last_block(self) -> torch.nn.Module:
        network = self.patcher.model.diffusion_model
        return next(getattr(network, name) for name in _LISTS if hasattr(network, name))[-1]


def joint_case(name: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Registers a case, which is made once for a whole test run."""

    def register(make: Callable[[], Case]) -> Callable[[], Case]:
        JOINT_CASES[name] = functools.cache(make)
        return JOINT_CASES[name]

    return register
