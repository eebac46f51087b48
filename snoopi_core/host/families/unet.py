"""Stable Diffusion UNets: SD1.x, SD2.x, SDXL and their relatives.

Dimensions: B rows of a call (chunks x rows of a chunk), N image tokens, T text tokens, C = heads x head width.

The host calls `transformer_options["patches_replace"]["attn2"][(group, index, depth)]` with (q, k, v, extra_options) in
place of a cross-attention's softmax, between its own to_q / to_k / to_v and to_out: exactly where NASA subtracts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import comfy.ldm.modules.attention as attention
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import BaseModel

from ...blocks import Block
from ...nasa import steer_away
from ..dtype import inference_dtype
from .base import Attachment, Family, Options, Steering

POSITIVE = 0
"""The host's number of the positive prompt in `cond_or_uncond`; other numbers are the negative's and extra passes."""

_node_numbers = count()

Key = tuple[str, int, int]
"""(group, block, depth within the block), the host's address of a cross-attention."""
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Options], torch.Tensor]


class Site(NamedTuple):
    """A transformer with a cross-attention, and where it is."""

    block: Block
    key: Key
    transformer: attention.BasicTransformerBlock

    @property
    def layer(self) -> attention.CrossAttention:
        """Looked up each time: another patch may put another layer there for a run."""
        return self.transformer.attn2


def sites(unet: UNetModel) -> Iterator[Site]:
    """Places of cross-attention in the order in which they run."""
    middle = [] if unet.middle_block is None else [unet.middle_block]
    for group, blocks in (("input", unet.input_blocks), ("middle", middle), ("output", unet.output_blocks)):
        for index, block in enumerate(blocks):
            for transformer in block:
                if isinstance(transformer, attention.SpatialTransformer):
                    for depth, inner in enumerate(transformer.transformer_blocks):
                        yield Site(Block(group, index), (group, index, depth), inner)


class UNetFamily(Family):
    name = "Stable Diffusion UNets (SD1.x, SD2.x, SDXL)"

    def matches(self, model: BaseModel) -> bool:
        unet = _network(model)
        if not isinstance(unet, UNetModel) or next(sites(unet), None) is None:
            return False
        # Video UNets attend to image embeddings, and number their temporal layers like the spatial ones.
        return not any(isinstance(module, attention.SpatialVideoTransformer) for module in unet.modules())

    def blocks(self, model: BaseModel) -> tuple[Block, ...]:
        return tuple(dict.fromkeys(site.block for site in sites(_network(model))))

    def context_width(self, model: BaseModel) -> int:
        return next(sites(_network(model))).layer.to_k.in_features

    def attach(self, steering: Steering) -> Attachment:
        return UNetAttachment(steering)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What the patches of one node need to know during one call of the model."""

    negative: torch.Tensor
    alpha: torch.Tensor
    positive_chunks: tuple[bool, ...]
    inner: Mapping[Key, Attention | None]


class _SteeredAttention:
    """Stands at one cross-attention. It outlives calls, so that a compiled model sees the same object each time."""

    def __init__(self, site: Site, slot: str) -> None:
        self.site, self.slot = site, slot

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra_options: Options) -> torch.Tensor:
        """Z of all rows, (B, N, C), for q (B, N, C) and k, v (B, T, C)."""
        call: _Call = extra_options[self.slot]
        inner = call.inner[self.site.key] or attend
        z = inner(q, k, v, extra_options)

        chunks = len(call.positive_chunks)
        assert q.shape[0] % chunks == 0, f"{q.shape[0]} rows of attention cannot be {chunks} conditionings"
        positive_q = [part for part, positive in zip(q.chunk(chunks), call.positive_chunks, strict=True) if positive]
        rows = q.shape[0] // chunks
        # From the weights as they are now: LoRAs, hooks and low-VRAM casts have all been applied.
        k_neg, v_neg = (
            comfy.utils.repeat_to_batch_size(project(call.negative), rows).repeat(len(positive_q), 1, 1)
            for project in (self.site.layer.to_k, self.site.layer.to_v)
        )
        z_neg = attend(_join(positive_q), k_neg, v_neg, extra_options)

        steered = iter(z_neg.split(rows))
        return _join(
            [
                steer_away(part, next(steered), call.alpha) if positive else part
                for part, positive in zip(z.chunk(chunks), call.positive_chunks, strict=True)
            ]
        )


class UNetAttachment:
    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        self.slot = f"snoopi_nasa_{next(_node_numbers)}"
        # By network: a node's output may run in several models at once, as it does on several GPUs.
        self._patches: WeakKeyDictionary[UNetModel, dict[Key, _SteeredAttention]] = WeakKeyDictionary()

    def __call__(
        self, model: BaseModel, x: torch.Tensor, options: Options, proceed: Callable[[Options], torch.Tensor]
    ) -> torch.Tensor:
        positive_chunks = tuple(number == POSITIVE for number in options.get("cond_or_uncond", (POSITIVE,)))
        if not any(positive_chunks):
            return proceed(options)

        patches = self._patches_of(_network(model))
        replace: dict[str, Any] = options.get("patches_replace", {})
        attn2: dict[tuple, Attention] = replace.get("attn2", {})
        call = _Call(
            negative=self.steering.negative.to(x.device, inference_dtype(model)),
            alpha=self.steering.alpha,
            positive_chunks=positive_chunks,
            # The host prefers an exact address to a whole block's.
            inner={key: attn2.get(key, attn2.get(key[:2])) for key in patches},
        )
        return proceed({**options, "patches_replace": {**replace, "attn2": {**attn2, **patches}}, self.slot: call})

    def _patches_of(self, unet: UNetModel) -> dict[Key, _SteeredAttention]:
        if unet not in self._patches:
            self._patches[unet] = {
                site.key: _SteeredAttention(site, self.slot)
                for site in sites(unet)
                if site.block in self.steering.blocks
            }
        return self._patches[unet]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra_options: Options) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V by whatever attention the host uses, (B, N, C) for q (B, N, C) and k, v (B, T, C)."""
    return attention.optimized_attention(
        q,
        k,
        v,
        extra_options["n_heads"],
        attn_precision=extra_options["attn_precision"],
        transformer_options=extra_options,
    )


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _network(model: BaseModel) -> torch.nn.Module:
    network = model.diffusion_model
    return getattr(network, "_orig_mod", network)  # torch.compile's wrapper
