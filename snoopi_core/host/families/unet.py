"""Stable Diffusion UNets: SD1.x, SD2.x, SDXL and their relatives.

Dimensions: B rows of a call, R positive rows, N image tokens, T text tokens, C = heads x head width.

Instead of a cross-attention's softmax, between its own to_q / to_k / to_v and to_out, the host calls
`transformer_options["patches_replace"]["attn2"][(group, index, depth)]` with (q, k, v, extra_options). This is exactly
where NASA subtracts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import comfy.ldm.modules.attention as attention
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ..conditioning.negative import Negative, check_width
from .base import Attachment, Call, Context, Family, Grid, KeysValues, Options, Term, network_of

_KINDS = {768: "SD1.5", 1024: "SD2.1", 2048: "SDXL"}
"""Kind of model by width of the text encoder's output."""
_CALL, _INNER = "snoopi_nasa", "snoopi_nasa_inner"

Address = tuple[str, int, int]
"""(group, block, depth within the block), the host's address of a cross-attention."""
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Options], torch.Tensor]


class UNetLayer(NamedTuple):
    """A transformer block with a cross-attention, and its UNet block."""

    block: Block
    transformer: attention.BasicTransformerBlock

    def keys_values(self, context: Context) -> KeysValues:
        # Looked up each time, because another patch may replace the layer for a run.
        layer = self.transformer.attn2
        return layer.to_k(context.tokens), layer.to_v(context.tokens)


class UNetFamily(Family):
    name = "Stable Diffusion UNets (SD1.x, SD2.x, SDXL)"

    def matches(self, model: BaseModel) -> bool:
        network = network_of(model)
        if not isinstance(network, UNetModel) or not self.layers(model):
            return False
        # Video UNets attend to image embeddings, and their temporal layers have the same addresses as the spatial ones.
        return not any(isinstance(module, attention.SpatialVideoTransformer) for module in network.modules())

    def layers(self, model: BaseModel) -> dict[Address, UNetLayer]:
        unet = network_of(model)
        middle = [] if unet.middle_block is None else [unet.middle_block]
        return {
            (group, index, depth): UNetLayer(Block(group, index), inner)
            for group, blocks in (("input", unet.input_blocks), ("middle", middle), ("output", unet.output_blocks))
            for index, block in enumerate(blocks)
            for transformer in block
            if isinstance(transformer, attention.SpatialTransformer)
            for depth, inner in enumerate(transformer.transformer_blocks)
        }

    def replaced_blocks(self, model: BaseModel) -> tuple[Block, ...]:
        # With a patch at its address, the host calls only the layer's projections (see the top of this file).
        layers = self.layers(model).values()
        return tuple(dict.fromkeys(each.block for each in layers if _has_another_forward(each.transformer.attn2)))

    def kind(self, model: BaseModel) -> str | None:
        return _KINDS.get(self._text_width(model))

    def check(self, model: BaseModel, negative: Negative) -> None:
        check_width(negative, self._text_width(model))

    def context(self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor) -> Context:
        # The dtype of activations: weights may be stored in another one and cast layer by layer.
        dtype = model.manual_cast_dtype or model.get_dtype()
        return Context(tokens=negative.embedding.to(x.device, dtype, non_blocking=True))

    def attach(self) -> Attachment:
        return UNetAttachment(self)

    def _text_width(self, model: BaseModel) -> int:
        return next(iter(self.layers(model).values())).transformer.attn2.to_k.in_features


def _has_another_forward(layer: torch.nn.Module) -> bool:
    """Whether a patch replaces the layer's forward. A removed patch leaves the class's own forward on the instance."""
    forward = vars(layer).get("forward")
    return forward is not None and getattr(forward, "__func__", None) is not type(layer).forward


class _SteeredAttention:
    """Steers one cross-attention. It is reused, so that a compiled model sees the same object in each call."""

    def __init__(self, address: Address, layer: UNetLayer) -> None:
        self.address, self.layer = address, layer

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra_options: Options) -> torch.Tensor:
        """Z of all rows, (B, N, C), for q (B, N, C) and k, v (B, T, C)."""
        call: Call = extra_options[_CALL]
        inner: Attention = extra_options[_INNER].get(self.address) or attend
        z = inner(q, k, v, extra_options)
        q_pos = call.select(q)

        def respond(term: Term) -> torch.Tensor:
            keys_values = term.keys_values[self.address] or self.layer.keys_values(term.context)
            k_neg, v_neg = (call.repeat(each, q_pos.shape[0]) for each in keys_values)
            return attend(q_pos, k_neg, v_neg, extra_options)

        def grid() -> Grid:
            height, width = extra_options["activations_shape"][-2:]
            return 1, height, width

        return call.steer(z, self.address, respond, grid)


class UNetAttachment:
    def __init__(self, family: UNetFamily) -> None:
        self.family = family
        # By network: a node's output may run in several models at once, for example on several GPUs.
        self._patches: WeakKeyDictionary[UNetModel, dict[Address, _SteeredAttention]] = WeakKeyDictionary()

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        network, layers = network_of(model), self.family.layers(model)
        known = self._patches.setdefault(network, {})
        for address in call.layers:
            # Another patch may have replaced the block for this run.
            if address not in known or known[address].layer != layers[address]:
                known[address] = _SteeredAttention(address, layers[address])
        patches = {address: known[address] for address in call.layers}
        replace: dict[str, Any] = options.get("patches_replace", {})
        attn2: Mapping[tuple, Attention] = replace.get("attn2", {})
        # As in the host, a patch at the exact address has priority over one for the whole block.
        inner = {address: attn2.get(address, attn2.get(address[:2])) for address in patches}
        patched = {**replace, "attn2": {**attn2, **patches}}
        options = {**options, "patches_replace": patched, _CALL: call, _INNER: inner}
        if network is model.diffusion_model:
            return proceed(options)
        # The host compiles networks without guards on their options, so a graph traced without NASA, or with another
        # node, would be reused. Argument names are guarded, and the network ignores unknown ones.
        return proceed(options, **{f"{_CALL}_{call.graph_key()}": True})


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra_options: Options) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V with the host's attention function, (B, N, C) for q (B, N, C) and k, v (B, T, C)."""
    heads, precision = extra_options["n_heads"], extra_options["attn_precision"]
    return attention.optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)
