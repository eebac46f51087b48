"""Small UNets of the published shapes with random weights: in the host, and as a reference."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import UNet2DConditionModel
from reference import Condition, Reference

from snoopi_core.checkpoint import Metadata
from snoopi_core.host.build import build_model
from snoopi_core.layouts import to_single_file, unet_rename

CONTEXT = 48  # not a multiple of any other width here, so nothing fits by accident
POOLED = 40
SIDE = 8  # latent height and width

_COMMON: dict[str, Any] = {"sample_size": SIDE, "layers_per_block": 1, "cross_attention_dim": CONTEXT}
CONFIGS: dict[str, dict[str, Any]] = {
    # Convolutions around the transformers; a number of heads.
    "sd15": {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,
    },
    # Linear layers around the transformers; heads of one width.
    "sd21": {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": (2, 4, 4),
        "use_linear_projection": True,
    },
    # No attention at full resolution, deeper transformers, pooled text and sizes.
    "sdxl": {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4, 4),
        "transformer_layers_per_block": (1, 2, 3),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": POOLED + 6 * 256,
    },
}


def random_unet(kind: str, seed: int = 0) -> UNet2DConditionModel:
    """Cross-attention is made to carry weight, so that what happens in it shows in the output.

    Its logits stay as they are: sharper ones would magnify rounding.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**_COMMON, **CONFIGS[kind]).eval().requires_grad_(False)
    for name, weight in unet.named_parameters():
        if ".attn2.to_v." in name or ".attn2.to_out." in name:
            weight.mul_(2.0)
    return unet


def metadata_of(unet: UNet2DConditionModel, prediction_type: str = "epsilon", **changes: Any) -> Metadata:
    return Metadata(
        title="random",
        role="student",
        prediction_type=prediction_type,
        unet=dict(unet.config),
        latent_scale=1.0,
        **changes,
    )


@dataclass(frozen=True)
class Case:
    """One model twice: in the host, and as a reference."""

    kind: str
    patcher: ModelPatcher
    reference: Reference

    def condition(self, seed: int, tokens: int = 77, rows: int = 1) -> Condition:
        """A random prompt."""
        generator = torch.Generator().manual_seed(seed)
        condition = {"context": torch.randn(rows, tokens, CONTEXT, generator=generator)}
        if self.kind == "sdxl":
            condition["pooled"] = torch.randn(1, POOLED, generator=generator)
            pixels = 8.0 * SIDE
            condition["time_ids"] = torch.tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]])
        return condition


@functools.cache
def case(kind: str, prediction_type: str = "epsilon", seed: int = 0) -> Case:
    """Made once for a whole test run; tests work on clones of its patcher, as nodes do."""
    unet = random_unet(kind, seed)
    weights = to_single_file(unet.state_dict(), unet_rename(unet.config))
    patcher = build_model(metadata_of(unet, prediction_type), weights)
    return Case(kind, patcher, Reference(unet, prediction_type))


def conditioning(condition: Condition, **settings: Any) -> list:
    """The host's CONDITIONING for a prompt."""
    pooled = {"pooled_output": condition["pooled"]} if "pooled" in condition else {}
    return [[condition["context"], {**pooled, **settings}]]


def empty_latent(rows: int = 1) -> torch.Tensor:
    return torch.zeros(rows, 4, SIDE, SIDE)


def noise(rows: int = 1, seed: int = 7) -> torch.Tensor:
    """What the host draws for this seed, (rows, 4, h, w)."""
    return comfy.sample.prepare_noise(empty_latent(rows), seed)


def host_sample(
    patcher: ModelPatcher,
    positive: list,
    negative: list,
    *,
    cfg: float = 1.0,
    rows: int = 1,
    seed: int = 7,
    steps: int = 1,
    **settings: Any,
) -> torch.Tensor:
    """The host's own KSampler, (rows, 4, h, w).

    Of its samplers, lcm hands the last x0 over as it is; euler takes it from x and adds it again, which costs 1e-6.
    """
    return comfy.sample.sample(
        patcher, noise(rows, seed), steps, cfg, "lcm", "simple", positive, negative, empty_latent(rows),
        seed=seed, disable_pbar=True, **settings,
    )  # fmt: skip
