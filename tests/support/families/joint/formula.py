"""NASA and the other methods in joint attention written out in fp64: three streams, and references of whole networks
around them.

    Z = Z+ - alpha sum over n in N of e^n v_n / (e^N + e^I)         for the picture's queries, by NASA
    N's queries over N and I;   P's and the image's own over P and I

Nothing of `snoopi_core` is used here. Dimensions: B batch rows, H heads, D head width; tokens of P, N, I.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from written_out import VSF_BETA, by_nag, by_orthogonal

from ..base import host_inputs
from ..formula import Subtraction, rotate

MUTANTS = ("plus", "m = 1", "P's queries too", "the positive's positions", "on the unconditional rows too")
MUTANTS_OF_METHODS = {
    "NAG": ("only the negative's part", "as in cross-attention"),
    "VSF": ("without the prompt", "without the image"),
    "orthogonal": ("as in cross-attention",),
}


class QKV(NamedTuple):
    """Of some tokens, (B, H, tokens, D) each, and their mask as keys, (B, tokens), of 0 and 1."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: torch.Tensor | None = None


@dataclass
class Negative:
    """A negative's text on its way: (B, N, C), its positions as the blocks take them, its mask (B, N)."""

    tokens: torch.Tensor
    positions: Any
    mask: torch.Tensor | None
    subtraction: Subtraction


def weights(q: torch.Tensor, several: Sequence[QKV]) -> list[torch.Tensor]:
    """e^j for each group of keys, up to one factor for each query: (B, H, queries, tokens) each."""
    logits = []
    for tokens in several:
        each = torch.einsum("bhqd,bhkd->bhqk", q, tokens.k) / q.shape[-1] ** 0.5
        if tokens.mask is not None:
            each = each.masked_fill(tokens.mask[:, None, None, :] == 0, -torch.inf)
        logits.append(each)
    largest = torch.cat(logits, -1).amax(-1, keepdim=True)
    return [torch.exp(each - largest) for each in logits]


def attend(q: torch.Tensor, *several: QKV) -> torch.Tensor:
    """softmax over all these keys, (B, H, queries, D)."""
    parts = weights(q, several)
    return sum(e @ tokens.v for e, tokens in zip(parts, several, strict=True)) / sum(
        e.sum(-1, keepdim=True) for e in parts
    )


def attend_to_negative(q: torch.Tensor, n: QKV, i: QKV, mutant: str | None) -> torch.Tensor:
    """sum over n of e^n v_n / (e^N + e^I)"""
    e_n, e_i = weights(q, [n, i])
    below = e_n.sum(-1, keepdim=True)
    return e_n @ n.v / (below if mutant == "m = 1" else below + e_i.sum(-1, keepdim=True))


def by_vsf(q: torch.Tensor, p: QKV, n: QKV, i: QKV, scale: float, mutant: str | None) -> torch.Tensor:
    """One softmax over P, N and I, the negative's scores minus beta, its values times -scale (arXiv 2508.10931)."""
    e_p, e_n, e_i = weights(q, [p, n, i])
    e_n = e_n * math.exp(-VSF_BETA)
    e_p, e_i = e_p * (mutant != "without the prompt"), e_i * (mutant != "without the image")
    above = e_p @ p.v + e_i @ i.v - scale * e_n @ n.v
    return above / sum(each.sum(-1, keepdim=True) for each in (e_p, e_n, e_i))


class JointReference:
    """A copy of a network of the host in fp64, with blocks that are written out."""

    picture: Callable[[int], slice] | None = None

    def __init__(self, patcher: Any) -> None:
        self.patcher = patcher
        self.network = copy.deepcopy(patcher.model.diffusion_model).double().eval()
        self.network.dtype = torch.float64
        self.mutant: str | None = None
        self.negatives: list[Negative] = []
        self.attentions: list[Seen] = []
        self._modules: list[torch.nn.Module] = []
        for module, forward in self.blocks():
            self._modules.append(module)
            seen = Seen()
            self.attentions.append(seen)
            module.forward = Bound(forward, module, len(self.attentions) - 1)

    def blocks(self) -> list[tuple[torch.nn.Module, Callable]]:
        """The joint blocks, each with its written-out forward: (block, index, *args, **kwargs)."""
        raise NotImplementedError

    def cross_attentions(self) -> list[torch.nn.Module]:
        """The joint blocks: what a LoRA changes in tests."""
        return self._modules

    def prepare(self, condition: dict[str, Any], x: torch.Tensor) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """A prompt as the blocks get it: tokens, positions, mask."""
        raise NotImplementedError

    def picture_tokens(self, image: int) -> slice:
        """Of the image's tokens, those that are steered."""
        return slice(0, image)

    def run(self, x: torch.Tensor, t: torch.Tensor, condition: dict[str, Any]) -> torch.Tensor:
        inputs = host_inputs(self.patcher, x, condition)
        return self.network(x, t, inputs.pop("c_crossattn"), transformer_options={}, **inputs)

    @torch.no_grad()
    def output(
        self, x: torch.Tensor, t: torch.Tensor, condition: dict[str, Any], subtractions: Sequence[Subtraction] = ()
    ) -> torch.Tensor:
        self.negatives = [Negative(*self.prepare(each.condition, x), each) for each in subtractions]
        if self.mutant == "the positive's positions":
            for each in self.negatives:
                each.positions = self.moved(each.positions)
        return self.run(x, t, condition)

    def moved(self, positions: Any) -> Any:
        """Wrong positions, for a mutant."""
        return None if positions is None else positions.roll(1, 2)

    def attend(self, index: int, p: QKV, i: QKV, negatives: Sequence[QKV]) -> tuple[torch.Tensor, ...]:
        """Z of P, of I and of each negative, (B, tokens, C)."""
        z_p, z_i = (flat(attend(each.q, p, i)) for each in (p, i))
        picture, seen = self.picture_tokens(i.q.shape[2]), self.attentions[index]
        seen.z_pos, seen.responses = z_i[:, picture], []
        q, others = i.q[:, :, picture], []
        for n, negative in zip(negatives, self.negatives, strict=True):
            others.append(flat(attend(n.q, n, i)))
            subtraction = negative.subtraction
            if subtraction.blocks is not None and index not in subtraction.blocks:
                continue
            seen.responses.append(flat(attend_to_negative(q, n, i, self.mutant)))
            change = self.change(seen.z_pos, seen.responses[-1], q, p, n, i, subtraction)
            if subtraction.image_tokens is not None:
                change = change * subtraction.image_tokens[:, None]
            sign = -1.0 if self.mutant == "plus" else 1.0
            z_i = z_i.clone()
            z_i[:, picture] += sign * change
            if self.mutant == "P's queries too":
                z_p = z_p - subtraction.alpha * flat(attend_to_negative(p.q, n, i, None))
        seen.z = z_i[:, picture]
        return z_p, z_i, *others

    def change(
        self, z: torch.Tensor, part: torch.Tensor, q: torch.Tensor, p: QKV, n: QKV, i: QKV, subtraction: Subtraction
    ) -> torch.Tensor:
        """What a method adds to Z+, (B, tokens, C); `part`: m_N Z_N."""
        method, alpha, mutant = subtraction.method, subtraction.alpha, self.mutant
        if method == "NASA":
            return -alpha * part
        if method == "VSF":
            return flat(by_vsf(q, p, n, i, alpha, mutant)) - z
        if mutant == "as in cross-attention":
            part = flat(attend(q, n))
        if method == "orthogonal":
            return by_orthogonal(z, part, alpha) - z
        assert method == "NAG"
        whole = part if mutant in MUTANTS_OF_METHODS["NAG"] else flat(attend(q, n, i))
        return by_nag(z, whole, alpha) - z


class Seen:
    """Of the last call of a block: Z+, the m_N Z_N of each negative, and what is left of Z+."""

    z_pos: torch.Tensor
    responses: list[torch.Tensor]
    z: torch.Tensor

    @property
    def seen(self) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        return self.z_pos, self.responses, self.z


class Bound:
    """A written-out forward with its block and index. Not copied with the module."""

    def __init__(self, forward: Callable, module: torch.nn.Module, index: int) -> None:
        self.forward, self.module, self.index = forward, module, index

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("transformer_options", None)
        return self.forward(self.module, self.index, *args, **kwargs)


def flat(z: torch.Tensor) -> torch.Tensor:
    """(B, tokens, H D) of (B, H, tokens, D)."""
    return z.transpose(1, 2).flatten(2)


def heads(x: torch.Tensor, number: int) -> torch.Tensor:
    """(B, H, tokens, D) of (B, tokens, H D)."""
    return x.unflatten(-1, (number, -1)).transpose(1, 2)


def rotated(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Rotary positions: x (B, H, tokens, D), matrices (1 or B, 1, tokens, D/2, 2, 2)."""
    return rotate(x.unflatten(-1, (-1, 2)), matrices).flatten(-2)
