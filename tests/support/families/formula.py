"""NASA and the other methods written out in fp64, as the cross-attention of a copy of the host's network.

Z = softmax(Q K+^T / sqrt D) V+ - sum alpha softmax(Q K-^T / sqrt D) V-, then the output projection, once.
(arXiv 2412.02687, Algorithm 1.) Nothing of `snoopi_core` is used here.
Dimensions: B batch rows, N image tokens, T text tokens, H heads, D head width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear
from written_out import VSF_BETA, by_nag, by_orthogonal


@dataclass(frozen=True, kw_only=True)
class Subtraction:
    """One negative prompt, its strength, and where it acts: blocks by index, image tokens (N,) by 0 and 1; or all.

    `after_projection` is a wrong formula, O(Z+) - alpha O(Z-), which takes the bias off as well: tests of the tests.
    """

    condition: dict[str, Any]
    alpha: float
    method: str = "NASA"
    blocks: Sequence[int] | None = None
    image_tokens: torch.Tensor | None = None
    after_projection: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A subtraction with its negative prepared for a network's blocks: tokens (B, T, C), mask (B, T) of 0 and 1."""

    tokens: torch.Tensor
    mask: torch.Tensor | None
    subtraction: Subtraction

    def acts_in(self, block: int) -> bool:
        return self.subtraction.blocks is None or block in self.subtraction.blocks


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(Q K^T / sqrt D) V of every head, (B, N, H D), for q (B, N, H D), k and v (B, T, H D).

    The mask, (B, T) or (B, N, T), has 0 where nothing is seen, and may have weights.
    """
    attended.clear()
    attended.append((q, k, v, heads, mask))
    q, k, v = (tensor.unflatten(-1, (heads, -1)) for tensor in (q, k, v))
    logits = torch.einsum("bnhd,bthd->bhnt", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        logits = logits + (mask if mask.ndim == 3 else mask[:, None]).double().log()[:, None]
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhnt,bthd->bnhd", weights, v).flatten(-2)


attended: list[tuple] = []
"""The arguments of the last call of `attend`."""


def attend_to_both(prompt: tuple, negative: tuple, scale: float) -> torch.Tensor:
    """VSF (arXiv 2508.10931): one softmax over the tokens of both, the negative's values times -scale; (B, N, H D).

    Args:
        prompt, negative: arguments of `attend`; the queries are the same.
    """
    (q, k, v, heads, mask), (_, k_neg, v_neg, _, mask_neg) = prompt, negative
    k_neg, v_neg = (each.expand(q.shape[0], *each.shape[1:]) for each in (k_neg, v_neg))
    keys, values = torch.cat([k, k_neg], 1), torch.cat([v, -scale * v_neg], 1)
    q, keys, values = (tensor.unflatten(-1, (heads, -1)) for tensor in (q, keys, values))
    logits = torch.einsum("bnhd,bthd->bhnt", q, keys) / q.shape[-1] ** 0.5
    logits[..., k.shape[1] :] -= VSF_BETA
    if mask is not None:
        seen = torch.cat([mask, mask_neg.expand(q.shape[0], -1)], 1)
        logits = logits.masked_fill(seen[:, None, None, :] == 0, -torch.inf)
    return torch.einsum("bhnt,bthd->bnhd", logits.softmax(-1), values).flatten(-2)


def rms_norm(x: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * w over the last dimension."""
    return x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight


def layer_norm(x: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) * w + b over the last dimension."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def rotate(pairs: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of channels (..., D/2, 2) by matrices (..., D/2, 2, 2)."""
    return torch.einsum("...ij,...j->...i", matrices.double(), pairs)


def project(x: torch.Tensor, layer: torch.nn.Linear) -> torch.Tensor:
    return linear(x, layer.weight, layer.bias)


class WrittenOutAttention:
    """The forward pass of one cross-attention; each family defines its keys and values."""

    def __init__(self, layer: torch.nn.Module, block: int) -> None:
        self.layer, self.block = layer, block
        self.subtractions: Sequence[Prepared] = ()
        self.seen: tuple[torch.Tensor, list[torch.Tensor], torch.Tensor] | None = None
        """Of the last call: Z+, the Z- of each subtraction, and what went into the output projection."""

    def response(self, q: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Z of text tokens (B, T, C), (B, N, H D)."""
        raise NotImplementedError

    def gated(self, z: torch.Tensor) -> torch.Tensor:
        """What the layer makes of an attention's result before the output projection."""
        return z

    def answer(self, prompt: tuple) -> torch.Tensor:
        """Z+ of the text alone, for the arguments of its attention."""
        return self.gated(attend(*prompt))

    def change(self, prompt: tuple, negative: tuple, z_neg: torch.Tensor, subtraction: Subtraction) -> torch.Tensor:
        """What a method adds to Z+; `prompt` and `negative`: the arguments of their attentions."""
        if subtraction.method == "NASA":
            return -subtraction.alpha * z_neg
        z = self.answer(prompt)
        if subtraction.method == "NAG":
            return by_nag(z, z_neg, subtraction.alpha) - z
        if subtraction.method == "orthogonal":
            return by_orthogonal(z, z_neg, subtraction.alpha) - z
        assert subtraction.method == "VSF"
        return self.gated(attend_to_both(prompt, negative, subtraction.alpha)) - z

    def steer(self, q: torch.Tensor, z: torch.Tensor, out: torch.nn.Linear) -> torch.Tensor:
        """The output projection of Z+ - sum alpha Z-."""
        late: torch.Tensor | float = 0.0
        z_pos, responses, prompt = z, [], attended[0]
        for prepared in self.subtractions:
            if prepared.acts_in(self.block):
                z_neg, alpha = self.response(q, prepared.tokens, prepared.mask), prepared.subtraction.alpha
                responses.append(z_neg)
                change = self.change(prompt, attended[0], z_neg, prepared.subtraction)
                if prepared.subtraction.image_tokens is not None:
                    change = change * prepared.subtraction.image_tokens[:, None]
                if prepared.subtraction.after_projection:
                    late = late + alpha * project(z_neg, out)
                else:
                    z = z + change
        self.seen = (z_pos, responses, z)
        return project(z, out) - late


class TransformerReference:
    """A copy of a network of the host in fp64 with explicit attention; each family adds the rest.

    Self-attention with rotary positions is explicit too: newer hosts use kernels without fp64.
    """

    attention: type[WrittenOutAttention]

    def __init__(self, patcher: Any) -> None:
        self.patcher = patcher
        self.network = copy.deepcopy(patcher.model.diffusion_model).double().eval()
        self.network.dtype = torch.float64
        self.attentions = [self.attention(layer, block) for block, layer in enumerate(self.cross_attentions())]
        for attention in self.attentions:
            attention.layer.forward = attention

    def cross_attentions(self) -> list[torch.nn.Module]:
        """The cross-attention of each block."""
        raise NotImplementedError

    def prepare(self, condition: dict[str, Any], rows: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Text tokens as the blocks get them, (B, T, C) fp64, and their mask (B, T)."""
        raise NotImplementedError

    def run(self, x: torch.Tensor, t: torch.Tensor, condition: dict[str, Any]) -> torch.Tensor:
        """The network on a prompt."""
        raise NotImplementedError

    @torch.no_grad()
    def output(
        self, x: torch.Tensor, t: torch.Tensor, condition: dict[str, Any], subtractions: Sequence[Subtraction] = ()
    ) -> torch.Tensor:
        prepared = []
        for subtraction in subtractions:
            tokens, mask = self.prepare(subtraction.condition, x.shape[0])
            prepared.append(Prepared(tokens=tokens, mask=mask, subtraction=subtraction))
        for attention in self.attentions:
            attention.subtractions = prepared
        return self.run(x, t, condition)


def to_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Expand one row to (rows, ...); a tensor that already has `rows` rows is unchanged."""
    return tensor.expand(rows, *tensor.shape[1:])
