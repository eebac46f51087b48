"""Stable Diffusion's UNet, with diffusers' network as the reference."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import reference
import torch
import unets

from .base import Case, Condition, draw
from .formula import Subtraction


class _Seen:
    def __init__(self, seen: reference.Seen) -> None:
        self.seen = seen


class _Reference:
    """diffusers' UNet in fp64; blocks of a subtraction are numbered in the order in which they run."""

    def __init__(self, subject: unets.Case) -> None:
        self.subject = subject
        order = ("down_blocks", "mid_block", "up_blocks")
        names = subject.reference.cross_attention_names()
        self.names = sorted(names, key=lambda name: order.index(name.partition(".")[0]))

    @property
    def attentions(self) -> list[_Seen]:
        return [_Seen(seen) for seen in self.subject.reference.seen]

    def output(
        self, x: torch.Tensor, t: torch.Tensor, condition: Condition, subtractions: Sequence[Subtraction] = ()
    ) -> torch.Tensor:
        away = [
            reference.Subtraction(
                each.condition["context"],
                each.alpha,
                None if each.blocks is None else [self.names[number] for number in each.blocks],
                None if each.image_tokens is None else each.image_tokens.reshape(1, *x.shape[-2:]),
                each.method,
                after_projection=each.after_projection,
            )
            for each in subtractions
        ]
        return self.subject.reference.output(x, int(t[0]), condition, away)


class _UNetCase(Case):
    def last_block(self) -> torch.nn.Module:
        return self.patcher.model.diffusion_model.out


def _condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
    return {"context": draw(generator, rows, tokens, unets.CONTEXT)}


@functools.cache
def sd15() -> Case:
    subject = unets.case("sd15", seed=11)  # no other test patches this one
    blocks = len(subject.reference.cross_attention_names())
    return _UNetCase(
        name="UNet SD1.5", patcher=subject.patcher, reference=_Reference(subject), make_condition=_condition,
        latent_shape=(4, unets.SIDE, unets.SIDE), patch=1, blocks=blocks, tokens=77, fewer=20, more=154,
    )  # fmt: skip
