"""PixArt-alpha (512, and 1024 with its sizes) and PixArt-sigma: the host's network, and diffusers' with its weights."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.supported_models as supported
import torch
from diffusers import PixArtTransformer2DModel

from .base import CONTEXT, Case, Condition, build, draw, padding_mask, randomize
from .formula import Prepared, Subtraction, WrittenOutAttention, attend, project, to_rows

SIDE = 34  # the host cannot place fewer than 33
_WIDTH, _HEADS, _DEPTH = 48, 4, 3


@dataclass(frozen=True)
class _Kind:
    config: type
    image_model: str
    sizes: bool  # takes the size of the image
    interpolation: int
    name: str


_KINDS = {
    "alpha-512": _Kind(supported.PixArtAlpha, "pixart_alpha", False, 1, "PixArt-alpha 512"),
    "alpha-1024": _Kind(supported.PixArtAlpha, "pixart_alpha", True, 2, "PixArt-alpha 1024"),
    "sigma": _Kind(supported.PixArtSigma, "pixart_sigma", False, 2, "PixArt-sigma"),
}


class WrittenOutProcessor(WrittenOutAttention):
    """A diffusers attention processor. Without masks, like the host's cross-attention."""

    def response(self, q, tokens, mask):
        return attend(q, project(tokens, self.layer.to_k), project(tokens, self.layer.to_v), self.layer.heads)

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        assert attn is self.layer and attention_mask is None
        q = project(hidden_states, attn.to_q)
        if encoder_hidden_states is None:
            return project(self.response(q, hidden_states, None), attn.to_out[0])
        return self.steer(q, self.response(q, encoder_hidden_states, None), attn.to_out[0])


class PixArtReference:
    """diffusers' PixArt in fp64 with explicit softmax."""

    def __init__(self, network: PixArtTransformer2DModel) -> None:
        self.network = copy.deepcopy(network).double().eval()
        self.attentions = []
        for block, layers in enumerate(self.network.transformer_blocks):
            for attention in (layers.attn1, layers.attn2):
                processor = WrittenOutProcessor(attention, block)
                attention.set_processor(processor)
            self.attentions.append(processor)  # the cross-attention's

    @torch.no_grad()
    def output(
        self, x: torch.Tensor, t: torch.Tensor, condition: Condition, subtractions: Sequence[Subtraction] = ()
    ) -> torch.Tensor:
        """eps, the first half of the output's channels."""
        rows = x.shape[0]
        prepared = [
            Prepared(
                tokens=to_rows(self.network.caption_projection(subtraction.condition["context"].double()), rows),
                mask=None,
                subtraction=subtraction,
            )
            for subtraction in subtractions
        ]
        for attention in self.attentions:
            attention.subtractions = prepared
        height, width = (8 * side for side in x.shape[-2:])  # default
        height, width = condition.get("height", height), condition.get("width", width)
        sizes = {
            "resolution": torch.tensor([[height, width]], dtype=torch.float64).expand(rows, -1),
            "aspect_ratio": torch.tensor([[height / width]], dtype=torch.float64).expand(rows, -1),
        }
        context = to_rows(condition["context"].double(), rows)
        output = self.network(x, encoder_hidden_states=context, timestep=t, added_cond_kwargs=sizes).sample
        return output.chunk(2, 1)[0]


def random_pixart(kind: str = "alpha-512", seed: int = 0) -> PixArtTransformer2DModel:
    """A small network of diffusers; kinds: alpha-512, alpha-1024, sigma."""
    network = PixArtTransformer2DModel(
        num_attention_heads=_HEADS, attention_head_dim=_WIDTH // _HEADS, in_channels=4, out_channels=8,
        num_layers=_DEPTH, cross_attention_dim=_WIDTH, sample_size=64, patch_size=2, caption_channels=CONTEXT,
        use_additional_conditions=_KINDS[kind].sizes, interpolation_scale=_KINDS[kind].interpolation,
    )  # fmt: skip
    network = network.eval().requires_grad_(False)
    randomize(network, seed)
    return network


_OUTSIDE = {
    "pos_embed.proj": "x_embedder.proj",
    "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "adaln_single.emb.resolution_embedder.linear_1": "csize_embedder.mlp.0",
    "adaln_single.emb.resolution_embedder.linear_2": "csize_embedder.mlp.2",
    "adaln_single.emb.aspect_ratio_embedder.linear_1": "ar_embedder.mlp.0",
    "adaln_single.emb.aspect_ratio_embedder.linear_2": "ar_embedder.mlp.2",
    "adaln_single.linear": "t_block.1",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "proj_out": "final_layer.linear",
}
_INSIDE = {
    "attn1.to_out.0": "attn.proj",
    "attn2.to_q": "cross_attn.q_linear",
    "attn2.to_out.0": "cross_attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
_FUSED = {"attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"), "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v")}


def to_original(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename PixArt's weights from diffusers' names to the original ones, which the host uses.

    Raises:
        KeyError: for an unknown name.
    """
    weights = dict(weights)
    weights.pop("pos_embed.pos_embed", None)
    original = {"final_layer.scale_shift_table": weights.pop("scale_shift_table")}
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("transformer_blocks."))
    for block in range(blocks):
        theirs, ours = f"transformer_blocks.{block}", f"blocks.{block}"
        original[f"{ours}.scale_shift_table"] = weights.pop(f"{theirs}.scale_shift_table")
        for kind in ("weight", "bias"):
            for fused, parts in _FUSED.items():
                original[f"{ours}.{fused}.{kind}"] = torch.cat(
                    [weights.pop(f"{theirs}.{part}.{kind}") for part in parts]
                )
            for name, new in _INSIDE.items():
                original[f"{ours}.{new}.{kind}"] = weights.pop(f"{theirs}.{name}.{kind}")
    for name, weight in weights.items():
        layer, _, kind = name.rpartition(".")
        original[f"{_OUTSIDE[layer]}.{kind}"] = weight
    return original


@functools.cache
def pixart(kind: str = "alpha-512", seed: int = 0) -> Case:
    """One PixArt in the host and as a reference. Cached for the test run; tests use clones of its patcher."""
    settings = _KINDS[kind]
    network = random_pixart(kind, seed)
    arguments: dict[str, Any] = {
        "image_model": settings.image_model, "input_size": 64, "hidden_size": _WIDTH, "depth": _DEPTH,
        "num_heads": _HEADS, "caption_channels": CONTEXT, "pe_interpolation": settings.interpolation,
        "micro_condition": settings.sizes,
    }  # fmt: skip
    patcher = build(settings.config, arguments)
    target = patcher.model.diffusion_model
    missing, unexpected = target.load_state_dict(to_original(network.state_dict()), strict=False)
    # the null prompt of training
    assert missing == ["y_embedder.y_embedding"] and not unexpected, (missing, unexpected)

    def condition(generator: torch.Generator, tokens: int, rows: int, padding: int) -> Condition:
        made: Condition = {"context": draw(generator, rows, tokens, CONTEXT)}
        if settings.sizes:
            # As set by the host's text-encode node for PixArt.
            made |= {"height": 768, "width": 1024}
        if padding:
            # The host ignores it: its tokenizer does not pad, and its cross-attention has no mask. Encoded padding
            # counts as text, in the positive and in the negative.
            made["attention_mask"] = padding_mask(tokens, padding, rows)
        return made

    return Case(
        name=settings.name, patcher=patcher, reference=PixArtReference(network), make_condition=condition,
        latent_shape=(4, SIDE, SIDE), patch=2, blocks=_DEPTH,
    )  # fmt: skip
