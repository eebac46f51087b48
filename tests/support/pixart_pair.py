"""One small PixArt with random weights: in the host, and as diffusers' own transformer in fp64."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass

import comfy.model_detection
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import PixArtTransformer2DModel
from reference import Condition

HIDDEN, CONTEXT, TOKENS = 24, 20, 9
SIDE = 40  # latent height and width; the host's position embedding divides by zero below 33


@dataclass(frozen=True)
class PixArtPair:
    patcher: ModelPatcher
    transformer: PixArtTransformer2DModel

    def condition(self, seed: int) -> Condition:
        generator = torch.Generator().manual_seed(seed)
        return {"context": torch.randn(1, TOKENS, CONTEXT, generator=generator)}

    @torch.no_grad()
    def output(self, x: torch.Tensor, t: int, condition: Condition) -> torch.Tensor:
        """The first four of the eight channels, (B, 4, h, w) fp64."""
        rows = x.shape[0]
        context = condition["context"].double().expand(rows, -1, -1)
        out = self.transformer(x.double(), context, torch.full((rows,), t), added_cond_kwargs=_NO_SIZES).sample
        return out[:, :4]


_NO_SIZES = {"resolution": None, "aspect_ratio": None}


@functools.cache
def pixart_pair(seed: int = 0) -> PixArtPair:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=HIDDEN // 2, num_layers=2, cross_attention_dim=HIDDEN,
            caption_channels=CONTEXT, sample_size=64, use_additional_conditions=False,
        )  # fmt: skip
    transformer = transformer.eval().requires_grad_(False)
    weights = _in_host_names(transformer.state_dict())

    class TinyPixArt(comfy.supported_models.PixArtAlpha):
        pass

    config = TinyPixArt(
        {
            "image_model": "pixart_alpha", "hidden_size": HIDDEN, "depth": 2, "num_heads": 2,
            "caption_channels": CONTEXT, "micro_condition": False, "pe_interpolation": 1.0,
        }
    )  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(weights, "", device=None)
    missing, unexpected = model.diffusion_model.load_state_dict(weights, strict=False)
    assert missing == ["y_embedder.y_embedding"] and not unexpected, (missing, unexpected)
    device = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)
    return PixArtPair(patcher, copy.deepcopy(transformer).double())


def _in_host_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename by the host's own table, which has the place of each weight in q, k, v."""
    table = comfy.utils.pixart_to_diffusers({"depth": 2, "hidden_size": HIDDEN})
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for name, weight in state.items():
        target = table[name]
        key, offset = (target, 0) if isinstance(target, str) else (target[0], target[1][1])
        parts.setdefault(key, {})[offset] = weight
    return {key: torch.cat([rows[at] for at in sorted(rows)]) for key, rows in parts.items()}
