"""A text-to-image model in diffusers' parts, from a diffusers folder, a hub id, or a contract file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from snoopi_core.checkpoint import PREFIXES, OneStepRecipe, Schedule, read_checkpoint
from snoopi_core.layouts import from_single_file, text_encoder_rename, unet_rename, vae_rename
from training.config import Teacher, find_file
from training.families import FAMILIES, Family
from training.text import Text
from training.tokenizer import clip_tokenizer


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The parts of a model, in evaluation mode, without gradients.

    network is a UNet2DConditionModel or a PixArtTransformer2DModel, by family. text_encoder and tokenizer may be absent
    where text embeddings are kept on disk.
    """

    network: nn.Module
    vae: AutoencoderKL
    schedule: Schedule
    prediction_type: str
    source: str
    family: Family = FAMILIES["unet"]
    text_encoder: nn.Module | None = None
    tokenizer: Any = None
    recipe: OneStepRecipe | None = None  # of a student's file

    def alphas_cumprod(self) -> torch.Tensor:
        """alpha_bar_t = alpha_t^2, shape (num_train_timesteps,), fp32: half precision is wrong by 100 % at t = 0."""
        return DDPMScheduler(**self.schedule.model_dump(), clip_sample=False).alphas_cumprod.float()

    @property
    def latent_channels(self) -> int:
        return self.network.config.in_channels

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Backbone:
        """On `device`; network and VAE in `dtype`. CLIP is small, and exact in fp32; T5 is loaded in bf16."""
        for module in (self.network, self.vae):
            module.to(device, dtype)
        if self.text_encoder is not None:
            self.text_encoder.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Text:
        """Text embeddings, fp32, on the network's device; longer prompts are cut at the tokenizer's length.

        Raises:
            ValueError: the model was loaded without its text encoder.
        """
        if self.text_encoder is None:
            raise ValueError(f"{self.source} has no text encoder; name one with teacher.text_encoder")
        text = self.family.encode(self.text_encoder, self.tokenizer, prompts)
        return text.to(self.network.device, torch.float32)

    def call(self, network: nn.Module, x_t: torch.Tensor, t: torch.Tensor, text: Text) -> torch.Tensor:
        """Prediction (B, C, h, w) of `network`, the backbone's own or a student of its form."""
        return self.family.call(network, x_t, t, text)

    def decode(self, x0: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1], (B, 3, 8h, 8w) fp32, from latents x0 (B, C, h, w) in the network's scale, with gradient."""
        return decode_latents(self.vae, x0)


def decode_latents(vae: nn.Module, x0: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1], (B, 3, 8h, 8w) fp32, by an AutoencoderKL or AutoencoderTiny; carries x0's gradient."""
    return (vae.decode(x0.to(vae.dtype) / vae.config.scaling_factor).sample.float() / 2 + 0.5).clamp(0, 1)


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's weights, names and values."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_teacher(section: Teacher) -> Backbone:
    """The teacher of a recipe; see `load_backbone`."""
    return load_backbone(section.path, section.prediction_type)


def load_backbone(path: str, prediction_type: str = "auto") -> Backbone:
    """Load a model; `prediction_type` overrides what its files say.

    Raises:
        FileNotFoundError: nothing is there; says what was looked for.
        ValueError: the file is no contract file, lacks a part, or its weights do not fit its config.
    """
    found = find_file(path)
    if found.is_file():
        parts = _from_contract(found)
    elif found.is_dir() or _looks_like_hub_id(path):
        parts = _from_diffusers(str(found) if found.is_dir() else path)
    else:
        raise FileNotFoundError(
            f"no teacher at {path!r}: expected a diffusers folder (with unet/, text_encoder/, vae/, tokenizer/ and "
            "scheduler/), a .safetensors file of this project, or a hub id such as owner/name"
        )
    if prediction_type != "auto":
        parts["prediction_type"] = prediction_type
    backbone = Backbone(source=path, **parts)
    for module in (backbone.network, backbone.text_encoder, backbone.vae):
        module.float().eval().requires_grad_(False)
    return backbone


def _looks_like_hub_id(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and Path(path).suffix != ".safetensors"


def _from_diffusers(source: str) -> dict[str, Any]:
    try:
        scheduler = DDPMScheduler.from_pretrained(source, subfolder="scheduler")
        _check_schedule(scheduler.config)
        return {
            "network": UNet2DConditionModel.from_pretrained(source, subfolder="unet", torch_dtype=torch.float32),
            "text_encoder": CLIPTextModel.from_pretrained(source, subfolder="text_encoder", dtype=torch.float32),
            "tokenizer": CLIPTokenizer.from_pretrained(source, subfolder="tokenizer"),
            "vae": AutoencoderKL.from_pretrained(source, subfolder="vae", torch_dtype=torch.float32),
            "schedule": Schedule(**{name: scheduler.config[name] for name in Schedule.model_fields}),
            "prediction_type": scheduler.config.prediction_type,
        }
    except OSError as error:
        raise FileNotFoundError(f"teacher {source!r} cannot be loaded as a diffusers model: {error}") from error


def _check_schedule(config: Any) -> None:
    for name in ("rescale_betas_zero_snr", "trained_betas"):
        if config.get(name) not in (None, False):
            raise ValueError(
                f"the teacher's scheduler has {name} = {config[name]!r}, which is not supported: at zero "
                "signal-to-noise x0 cannot be had from eps. Supported schedules: linear and scaled_linear betas"
            )


def _from_contract(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    metadata = checkpoint.metadata
    absent = [part for part in PREFIXES if getattr(metadata, part) is None]
    if absent:
        raise ValueError(f"{path.name} holds no {' and no '.join(absent)}; a teacher needs {', '.join(PREFIXES)}")
    tokenizer = clip_tokenizer()
    if metadata.pad_token_id != tokenizer.pad_token_id:
        raise ValueError(
            f"{path.name} pads prompts with token {metadata.pad_token_id}; a file can be a teacher here only if it "
            f"pads with {tokenizer.pad_token_id}, as SD1.x does. Use the model's diffusers folder instead"
        )
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(metadata.unet)
        vae = AutoencoderKL.from_config(metadata.vae)
    # Text encoders hold non-persistent buffers (position ids) that must not stay on the meta device.
    text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(metadata.text_encoder))
    for module, weights, rename in (
        (unet, checkpoint.unet, unet_rename(unet.config)),
        (vae, checkpoint.vae, vae_rename(vae.config)),
        (text_encoder, checkpoint.text_encoder, text_encoder_rename),
    ):
        module.load_state_dict(from_single_file(weights, module.state_dict(), rename), assign=True)
    return {
        "network": unet,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "vae": vae,
        "schedule": metadata.schedule,
        "prediction_type": metadata.prediction_type,
        "recipe": metadata.recipe,
    }
