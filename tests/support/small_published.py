"""Small copies of the files that the templates for current models need, under those very names.

Networks, text encoders and VAEs are of the host's classes, which its own loaders recognise (small_copies.py); weights
are random.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.supported_models as supported
import small_checkpoints
import small_encoders
import small_vaes
import torch
from families.base import CONTEXT, build
from families.cosmos import _ARGUMENTS as _COSMOS
from families.joint.flux import _FLUX_2
from families.joint.krea2 import KREA_2
from families.joint.lumina import _Z_IMAGE
from families.joint.qwen_image import _QWEN
from families.ltx2 import _SHARED as _LTX
from families.ltx2 import _VERSIONS
from families.wan import ARGUMENTS as _WAN
from safetensors.torch import save_file
from small_copies import DECLARATION, Weights, resized
from templates import needed_files

TEXT = small_encoders.WIDTH
_VIDEO_TEXT, _AUDIO_TEXT = 64, 32
_ADAPTER = {
    "comfy.ldm.anima.model:LLMAdapter": {
        "source_dim": TEXT, "target_dim": CONTEXT, "model_dim": 32, "num_layers": 2, "num_heads": 2
    }
}  # fmt: skip


@dataclass(frozen=True)
class Small:
    """A network: its class in the host, its sizes, and what its file must declare for the host to recognise it."""

    config: str
    sizes: dict[str, Any]
    published: dict[str, list[int]] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)


_Z = {**_Z_IMAGE, "cap_feat_dim": TEXT, "rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0}
_ANIMA = {**_COSMOS, "image_model": "anima", "crossattn_emb_channels": CONTEXT}
_WAN_TEXT = {**_WAN, "text_dim": TEXT, "model_type": "t2v"}
_LTX_2_3 = {**_LTX, **_VERSIONS["LTX-2.3"]}
NETWORKS: dict[str, Small] = {
    "z_image_turbo_bf16": Small("ZImage", _Z, {"cap_embedder.1.weight": [3840, 2560]}),
    "qwen_image_fp8_e4m3fn": Small("QwenImage", {**_QWEN, "joint_attention_dim": TEXT}),
    "flux-2-klein-4b": Small("Flux2", {**_FLUX_2, "context_in_dim": 3 * TEXT}),
    "krea2_turbo_fp8_scaled": Small("Krea2", {**KREA_2, "txtdim": TEXT, "txtlayers": 12}),
    "anima-base-v1.0": Small("Anima", _ANIMA, {"x_embedder.proj.1.weight": [2048, 68]}, _ADAPTER),
    "wan2.2_t2v_high_noise_14B_fp8_scaled": Small("WAN21_T2V", _WAN_TEXT),
    "wan2.2_t2v_low_noise_14B_fp8_scaled": Small("WAN21_T2V", _WAN_TEXT),
}
_ENCODERS = {
    "qwen_3_4b": "qwen3_4b", "qwen_3_06b_base": "qwen3_06b", "qwen_2.5_vl_7b_fp8_scaled": "qwen25_7b",
    "qwen3vl_4b_fp8_scaled": "qwen3vl_4b", "umt5_xxl_fp8_e4m3fn_scaled": "umt5",
}  # fmt: skip
_VAES: dict[str, Callable[[], Weights]] = {
    "ae": lambda: small_vaes.picture(16), "flux2-vae": lambda: small_vaes.picture(32, batch_norm=True),
    "qwen_image_vae": small_vaes.wan, "wan_2.1_vae": small_vaes.wan,
}  # fmt: skip
LTX_CHECKPOINT, LTX_ENCODER = "ltx-2.3-22b-dev-fp8", "gemma_3_12B_it_fp4_mixed"


def write_files(template: str, models: Path) -> list[Path]:
    """Write every file that `template` needs below `models`; returns them."""
    needed = {(file.directory, Path(file.name).stem) for file in needed_files(template)}
    networks: list[Weights] = []
    for directory, name in sorted(needed):  # checkpoints and networks before LoRAs
        path = models / directory / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == LTX_CHECKPOINT:
            weights, metadata = _ltx()
            networks.append({key: w for key, w in weights.items() if key.startswith("model.diffusion_model.")})
            save_file(weights, path, metadata=metadata)
        elif name in small_checkpoints.CHECKPOINTS:
            weights, declaration = small_checkpoints.checkpoint(small_checkpoints.CHECKPOINTS[name])
            save_file({key: w.contiguous() for key, w in weights.items()} | _declaration(**declaration), path)
        elif name in small_checkpoints.LORAS:
            recipe, base = small_checkpoints.LORAS[name]
            small_checkpoints.write_student(path, recipe, models / "checkpoints" / f"{base}.safetensors")
        elif name in NETWORKS:
            networks.append(_network(name))
            save_file(networks[-1], path)
        elif directory == "loras":
            save_file(_lora(networks[-1]), path)
        elif name in _ENCODERS or name == LTX_ENCODER:
            save_file(_encoder(_ENCODERS.get(name, "gemma3_12b")), path)
        else:
            save_file(_VAES[name](), path)
    return [models / directory / f"{name}.safetensors" for directory, name in needed]


def _declaration(**what: Any) -> Weights:
    return {DECLARATION: torch.frombuffer(bytearray(json.dumps(what).encode()), dtype=torch.uint8)}


def _network(name: str) -> Weights:
    small = NETWORKS[name]
    with resized({"classes": small.classes}):
        network = build(getattr(supported, small.config), small.sizes, seed=len(name)).model.diffusion_model
    declared = _declaration(published=small.published, network=small.sizes, classes=small.classes)
    return {key: weight.contiguous() for key, weight in network.state_dict().items()} | declared


def _encoder(kind: str) -> Weights:
    return small_encoders.encoder(kind) | _declaration(**small_encoders.DECLARED[kind])


def _ltx() -> tuple[Weights, dict[str, str]]:
    """The checkpoint: network, both VAEs, the text's projections; all sizes are in its metadata, as published."""
    network = build(supported.LTXAV, _LTX_2_3).model.diffusion_model.state_dict()
    weights = {f"model.diffusion_model.{key}": weight.contiguous() for key, weight in network.items()}
    taps = TEXT * 49
    generator = torch.Generator().manual_seed(8)
    for part, width in (("video", _VIDEO_TEXT), ("audio", _AUDIO_TEXT)):
        projection = f"text_embedding_projection.{part}_aggregate_embed"
        weights[f"{projection}.weight"] = torch.randn(width, taps, generator=generator) / taps**0.5
        weights[f"{projection}.bias"] = torch.zeros(width)
    projections = {
        "comfy.text_encoders.lt:DualLinearProjection": {
            "in_dim": taps, "out_dim_video": _VIDEO_TEXT, "out_dim_audio": _AUDIO_TEXT
        }
    }  # fmt: skip
    config = {"transformer": _LTX_2_3, **small_vaes.LTX}
    weights |= small_vaes.ltx() | _declaration(classes=projections)
    return weights, {"config": json.dumps(config)}


def _lora(network: Weights, rank: int = 2) -> Weights:
    """A LoRA of the attentions' matrices, strong enough to change pictures."""
    generator = torch.Generator().manual_seed(9)
    out = {}
    for key, weight in network.items():
        name = key.removeprefix("model.diffusion_model.").removesuffix(".weight")
        if weight.ndim == 2 and key.endswith(".weight") and "attn" in name:
            down, up = (
                torch.randn(shape, generator=generator) for shape in ((rank, weight.shape[1]), (weight.shape[0], rank))
            )
            out[f"diffusion_model.{name}.lora_A.weight"] = down / weight.shape[1] ** 0.5
            out[f"diffusion_model.{name}.lora_B.weight"] = 0.2 * up
    return out
