"""L_CLIP: similarity of decoded images to their prompts (SNOOPI, arXiv 2412.02687, Section 3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional

from snoopi_core.formats.tensor_file import open_tensor_file
from training.config import Clip, Recipe, find_file
from training.distill.losses import clip_loss
from training.models.loading.weight_files import check_weights

_DECODER = "diffusion_pytorch_model"  # how diffusers calls its weights files
_PICKLES = (".bin", ".pth")  # which open_clip reads in a folder, as weights only
_LFS = b"version https://git-lfs"
Decode = Callable[[torch.Tensor], torch.Tensor]


class ClipLoss:
    """A frozen open_clip model, and a VAE decoder through which the gradient reaches x0."""

    def __init__(self, section: Clip, decode: Decode, device: torch.device) -> None:
        """Load the model.

        Raises:
            ValueError: unknown architecture, or its weights cannot be loaded.
        """
        file = find_file(section.pretrained)
        weights = str(file) if file.is_file() else section.pretrained
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                section.model, pretrained=weights, require_pretrained=True
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise ValueError(
                f"CLIP model {section.model!r} with weights {section.pretrained!r} cannot be loaded ({error}); "
                "give clip.pretrained a local file, or turn the loss off with clip.weight=0"
            ) from error
        self.section, self.decode = section, decode
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokenize = open_clip.get_tokenizer(section.model)
        normalise = preprocess.transforms[-1]  # open_clip ends every preprocessing with Normalize
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (normalise.mean, normalise.std))
        size = model.visual.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def loss(self, x0: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """L_CLIP of latents x0 (B, C, h, w) and their B prompts. Scalar, differentiable in x0."""
        images = self.decode(x0)
        return clip_loss(self.embed_images(images), self.embed_prompts(prompts), self.section.margin)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images (B, 3, H, W) in [0, 1], resized and normalised as CLIP expects. (B, E)."""
        resized = functional.interpolate(images, self.size, mode="bicubic", antialias=True, align_corners=False)
        return self.model.encode_image((resized - self.mean) / self.std)

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> torch.Tensor:
        """Embed B prompts. (B, E)."""
        return self.model.encode_text(self.tokenize(prompts).to(self.mean.device))


def check_clip_files(section: Clip) -> None:
    """Check the files of CLIP and its decoder that are on this machine, without loading them.

    Raises:
        FileNotFoundError, ValueError: a file is missing, cut short, or a pointer of git-lfs.
    """
    if section.weight == 0:
        return
    if section.decoder and (decoder := find_file(section.decoder)).is_dir():
        check_weights(decoder, _DECODER)
    local = section.model.removeprefix("local-dir:") if section.model.startswith("local-dir:") else ""
    files = [find_file(section.pretrained)]
    if local:  # open_clip takes .safetensors files before others
        files = sorted(Path(local).glob("*.safetensors")) or [p for p in Path(local).glob("*") if p.suffix in _PICKLES]
        if not files:
            raise FileNotFoundError(f"clip.model: {local} has no weights (.safetensors, {', '.join(_PICKLES)})")
    for file in files:
        if file.suffix == ".safetensors":
            open_tensor_file(file)
        elif file.is_file() and file.open("rb").read(len(_LFS)) == _LFS:
            raise ValueError(f"CLIP: {file} is a pointer of git-lfs, not the weights; download it again")


def load_tiny_vae(path: str) -> AutoencoderTiny:
    """Load a frozen tiny decoder such as TAESD, which takes a tenth of the VAE's memory and time, from a diffusers
    folder or hub id.

    Raises:
        ValueError: there is nothing, or another kind of model.
    """
    found = find_file(path)
    try:
        variant = check_weights(found, _DECODER) if found.is_dir() else None
        vae, info = AutoencoderTiny.from_pretrained(
            str(found) if found.is_dir() else path, use_safetensors=True, output_loading_info=True, variant=variant
        )
        if info["missing_keys"]:  # diffusers would use random weights instead
            raise ValueError(f"{len(info['missing_keys'])} of its weights are missing")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"clip.decoder {path!r} cannot be loaded ({reason}); expected a diffusers folder or hub id of an "
            "AutoencoderTiny, such as madebyollin/taesd; clip.decoder= uses the teacher's own VAE"
        ) from error
    return vae.eval().requires_grad_(False)


def clip_weight(recipe: Recipe, iteration: int) -> float:
    """Weight of L_CLIP in `iteration`: linear from clip.weight to clip.final_weight, if that is set."""
    clip = recipe.clip
    last = clip.weight if clip.final_weight is None else clip.final_weight
    return clip.weight + (last - clip.weight) * iteration / recipe.loop.iterations


def clip_rows(share: float, batch: int) -> frozenset[int]:
    """Rows of a batch that CLIP sees: `share` of them, at least one, evenly spaced so that every process gets some."""
    count = max(1, round(share * batch))
    return frozenset(number * batch // count for number in range(count))
