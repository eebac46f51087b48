"""Small UNets of the published shapes with random weights: in the host, and as a reference."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_detection
import comfy.sample
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import UNet2DConditionModel
from reference import Condition, Reference

from snoopi_core.formats.checkpoint import Metadata
from snoopi_core.formats.layouts import to_single_file, unet_rename
from snoopi_core.host.loading.build import build_model

CONTEXT = 48  # not a multiple of any other width here, so mix-ups of dimensions raise errors
POOLED = 40
AESTHETIC_SCORE = 6.0  # the host's value for a positive prompt of the refiner
SIDE = 8  # default latent height and width
Size = tuple[int, int]
"""Latent height and width."""

_COMMON: dict[str, Any] = {"sample_size": SIDE, "layers_per_block": 1, "cross_attention_dim": CONTEXT}


def _distilled_sdxl(depths: tuple[list[int], ...], depths_up: tuple[list[int], ...]) -> dict[str, Any]:
    return {
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4, 4),
        "transformer_layers_per_block": list(depths),
        "reverse_transformer_layers_per_block": list(depths_up),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": POOLED + 6 * 256,
    }


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
    # SDXL's refiner: no attention at the first and the last level, four layers elsewhere, five sizes.
    "refiner": {
        "block_out_channels": (32, 64, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4, 4, 4),
        "transformer_layers_per_block": 4,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": POOLED + 5 * 256,
    },
    # Distilled from SDXL: no attention in the middle, depths that differ within a level and on the way up.
    "ssd1b": _distilled_sdxl(depths=([1, 1], [2, 2], [4, 4]), depths_up=([4, 4, 10], [2, 1, 1], [1, 1, 1])),
    "vega": _distilled_sdxl(depths=([1, 1], [1, 1], [2, 2]), depths_up=([2, 2, 2], [1, 1, 1], [1, 1, 1])),
}
_HEADS = {"sd15": {"num_heads": 4, "num_head_channels": -1}}
_HEADS_OF_16 = {"num_heads": -1, "num_head_channels": 16}
_STOCK = {
    "sd15": comfy.supported_models.SD15,
    "sd21": comfy.supported_models.SD20,
    "sdxl": comfy.supported_models.SDXL,
    "refiner": comfy.supported_models.SDXLRefiner,
    "ssd1b": comfy.supported_models.SSD1B,
    "vega": comfy.supported_models.Segmind_Vega,
}


def random_unet(kind: str | Mapping[str, Any], seed: int = 0) -> UNet2DConditionModel:
    """A network of a shape in CONFIGS, or of other settings.

    Value and output weights of cross-attention are doubled, so that changes there are visible in the output.
    Queries and keys are not, since larger logits would magnify rounding.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = CONFIGS[kind] if isinstance(kind, str) else kind
        unet = UNet2DConditionModel(**{**_COMMON, **settings}).eval().requires_grad_(False)
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
    """One model in the host and as a reference."""

    kind: str
    patcher: ModelPatcher
    reference: Reference

    @property
    def size(self) -> Size:
        """Size of latents. Larger for the refiner: norms over a single pixel at its fourth level magnify rounding."""
        return (16, 16) if self.kind == "refiner" else (SIDE, SIDE)

    def condition(self, seed: int, tokens: int = 77, rows: int = 1, size: Size | None = None) -> Condition:
        """A random prompt, for a latent of this size."""
        generator = torch.Generator().manual_seed(seed)
        context = self.reference.unet.config["cross_attention_dim"]
        condition = {"context": torch.randn(rows, tokens, context, generator=generator)}
        if self.reference.unet.config["addition_embed_type"]:
            condition["pooled"] = torch.randn(1, POOLED, generator=generator)
            height, width = (8.0 * side for side in size or self.size)
            last = [AESTHETIC_SCORE] if self.kind == "refiner" else [height, width]
            condition["time_ids"] = torch.tensor([[height, width, 0.0, 0.0, *last]])
        return condition


@functools.cache
def case(kind: str, prediction_type: str = "epsilon", seed: int = 0) -> Case:
    """Cached for the whole test run; tests use clones of its patcher, as nodes do."""
    unet = random_unet(kind, seed)
    if kind in ("sd15", "sd21", "sdxl"):
        return case_of(unet, kind, prediction_type)
    return Case(kind, stock_model(unet, kind), Reference(unet, prediction_type))


def case_of(unet: UNet2DConditionModel, kind: str = "other", prediction_type: str = "epsilon") -> Case:
    """`unet` in the host, opened like by the pack's loader, and as a reference."""
    weights = to_single_file(unet.state_dict(), unet_rename(unet.config))
    patcher = build_model(metadata_of(unet, prediction_type), weights)
    return Case(kind, patcher, Reference(unet, prediction_type))


def stock_model(
    unet: UNet2DConditionModel, kind: str, dtype: torch.dtype = torch.float32, computed_in: torch.dtype | None = None
) -> ModelPatcher:
    """`unet` as opened by the host's own loader, which infers the shape from the weights; predicts epsilon.

    Args:
        kind: in CONFIGS.
        dtype: of the weights.
        computed_in: another dtype for activations, as on hardware without support for `dtype`.
    """
    weights = {
        name: weight.to(dtype) for name, weight in to_single_file(unet.state_dict(), unet_rename(unet.config)).items()
    }

    heads = {**_STOCK[kind].unet_extra_config, **_HEADS.get(kind, _HEADS_OF_16)}

    class StockConfig(_STOCK[kind]):
        unet_extra_config = heads
        latent_format = staticmethod(lambda: UnscaledLatents())

        def model_type(self, state_dict, prefix=""):
            return comfy.model_base.ModelType.EPS

    config = StockConfig(comfy.model_detection.detect_unet_config(weights, ""))
    config.set_inference_dtype(dtype, computed_in)
    model = config.get_model(weights, "")
    model.load_model_weights(weights, "")
    device = torch.device("cpu")
    return ModelPatcher(model, load_device=device, offload_device=device)


class UnscaledLatents(comfy.latent_formats.SD15):
    def __init__(self):
        super().__init__(scale_factor=1.0)


def conditioning(condition: Condition, **settings: Any) -> list:
    """The host's CONDITIONING for a prompt."""
    extra = {"pooled_output": condition["pooled"]} if "pooled" in condition else {}
    if "time_ids" in condition and condition["time_ids"].shape[1] == 5:
        extra["aesthetic_score"] = AESTHETIC_SCORE
    return [[condition["context"], {**extra, **settings}]]


def empty_latent(rows: int = 1, size: Size = (SIDE, SIDE)) -> torch.Tensor:
    return torch.zeros(rows, 4, *size)


def noise(rows: int = 1, seed: int = 7, size: Size = (SIDE, SIDE)) -> torch.Tensor:
    """The host's noise for this seed, (rows, 4, h, w)."""
    return comfy.sample.prepare_noise(empty_latent(rows, size), seed)


def own_forwards(patcher: ModelPatcher) -> dict[str, Any]:
    """Modules' own `forward` attributes. A model from other tests may have some: after removing a patched one, the host
    sets the class's bound method.
    """
    return {name: vars(m)["forward"] for name, m in patcher.model.named_modules() if "forward" in vars(m)}


def host_sample(
    patcher: ModelPatcher,
    positive: list,
    negative: list,
    *,
    cfg: float = 1.0,
    rows: int = 1,
    seed: int = 7,
    steps: int = 1,
    size: Size = (SIDE, SIDE),
    **settings: Any,
) -> torch.Tensor:
    """The host's own KSampler, (rows, 4, h, w).

    Uses lcm, which returns the last x0 unchanged; euler subtracts it from x and adds it again, with an error of 1e-6.
    """
    return comfy.sample.sample(
        patcher, noise(rows, seed, size), steps, cfg, "lcm", "simple", positive, negative, empty_latent(rows, size),
        seed=seed, disable_pbar=True, **settings,
    )  # fmt: skip
