"""Small copies of the checkpoints of Stable Diffusion 1.5 and XL, and a four-step LoRA of each, by the trainer."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import small_vaes
import torch
from diffusers import UNet2DConditionModel
from published import clip_weights, open_clip_weights
from safetensors.torch import load_file, save_file
from small_copies import DECLARATION, Weights
from small_models import seeded
from tiny import tiny_vae
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from snoopi_core.formats.architecture import text_arguments, unet_arguments
from snoopi_core.formats.layouts import to_single_file, unet_rename, vae_rename
from training.pgsb import main as train
from training.prompts.encode import main as encode_prompts

CHECKPOINTS = {"v1-5-pruned-emaonly-fp16": "SD1.5", "sd_xl_base_1.0": "SDXL"}
LORAS = {  # the recipe, and the checkpoint that it is trained on
    "my_4_step_lora_sd15": ("sd15_lora_4step", "v1-5-pruned-emaonly-fp16"),
    "my_4_step_lora_sdxl": ("sdxl_lora_4step", "sd_xl_base_1.0"),
}
_SMALLER = (
    "student.lora_rank=4", "student.lora_scaling=4", "student.learning_rate=3e-2", "student.ema_decay=0", "lora.rank=2",
    "clip.weight=0", "loop.iterations=2", "loop.batch_size=2", "loop.micro_batch=1", "loop.latent_size=8",
    "loop.threads=1", "output.sample_every=0", "output.trackers=[]",
)  # fmt: skip
_DOWN, _UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
_WIDTH, _POOLED = 64, 64
_UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": {
        "block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 768, "attention_head_dim": 8,
    },
    "SDXL": {
        "block_out_channels": (32, 64, 64), "cross_attention_dim": 2 * _WIDTH, "attention_head_dim": 1,
        "down_block_types": (_DOWN[0], _DOWN[1], _DOWN[1]), "up_block_types": (_UP[1], _UP[1], _UP[0]),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": _POOLED + 6 * 256,
    },
}  # fmt: skip
# What the host recognises each by.
_PUBLISHED = {
    "SD1.5": {"input_blocks.0.0.weight": [320, 4, 3, 3]},
    "SDXL": {
        "input_blocks.0.0.weight": [320, 4, 3, 3],
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": [640, 2048],
        "label_emb.0.0.weight": [1280, 2816],
    },
}
_TEXT = {"hidden_size": _WIDTH, "intermediate_size": 4 * _WIDTH, "num_attention_heads": 1, "num_hidden_layers": 3}


@torch.no_grad()
def checkpoint(kind: str) -> tuple[Weights, dict[str, Any]]:
    """The weights, and what their file declares. SD1.5's text encoder has the published size."""
    unet = seeded(UNet2DConditionModel, **_UNETS[kind])
    weights = to_single_file(unet.state_dict(), unet_rename(unet.config))
    weights = {f"model.diffusion_model.{key}": weight for key, weight in weights.items()}
    weights |= {f"first_stage_model.{key}": weight for key, weight in small_vaes.picture(4).items()}
    declaration = {"published": _PUBLISHED[kind], "network": unet_arguments(unet.config)}
    if kind == "SD1.5":
        config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        weights |= clip_weights(CLIPTextModel(config).half())
        return weights, declaration
    first, second = CLIPTextConfig(**_TEXT), CLIPTextConfig(**_TEXT, hidden_act="gelu", projection_dim=_POOLED)
    weights |= clip_weights(CLIPTextModel(first), "conditioner.embedders.0.transformer.")
    encoder = open_clip_weights(CLIPTextModelWithProjection(second))
    weights |= {f"conditioner.embedders.1.model.{key}": weight for key, weight in encoder.items()}
    sizes = {
        f"clip_{name}_model_config": text_arguments(config.to_dict())
        for name, config in zip("lg", (first, second), strict=True)
    }
    return weights, declaration | {"classes": {"comfy.sdxl_clip:SDXLClipModel": {"model_options": sizes}}}


def write_teacher(checkpoint: Path, path: Path) -> Path:
    """The same model without what only the host needs, and with a VAE that the trainer can read."""
    weights, vae = load_file(checkpoint), tiny_vae()
    kept = {key: w for key, w in weights.items() if key != DECLARATION and not key.startswith("first_stage_model.")}
    encoding = to_single_file(vae.state_dict(), vae_rename(vae.config))
    save_file(kept | {f"first_stage_model.{key}": weight.contiguous() for key, weight in encoding.items()}, path)
    return path


def write_student(path: Path, recipe: str, checkpoint: Path) -> None:
    """A LoRA for `checkpoint`, by the commands of docs/YOUR_OWN_LORA.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher = write_teacher(checkpoint, folder / checkpoint.name)
        (folder / "prompts.txt").write_text("a photo of a pet\na dog\na red ring on the left\n", encoding="utf-8")
        words = ["--recipe", recipe, f"teacher.path={teacher}", f"prompts.source={folder / 'prompts.txt'}", *_SMALLER]
        if recipe.startswith("sdxl"):
            words.append(f"prompts.text_cache={folder / 'text'}")
            assert encode_prompts([*words, "--cpu"]) == 0
        assert train([*words, f"output.folder={folder / 'run'}", "--cpu"]) == 0
        shutil.copy(folder / "run" / "export" / "student.safetensors", path)
