"""CLIP as the judge of L_CLIP: decoded images against their prompts (SNOOPI, arXiv 2412.02687, Section 3)."""

from __future__ import annotations

from collections.abc import Callable

import open_clip
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional

from training.config import Clip, Recipe, find_file
from training.distill.losses import clip_loss

Decode = Callable[[torch.Tensor], torch.Tensor]


class ClipJudge:
    """A frozen open_clip model, and the VAE's decoder through which the gradient reaches x0."""

    def __init__(self, section: Clip, decode: Decode, device: torch.device) -> None:
        """Load the model.

        Raises:
            ValueError: no such architecture, or the weights cannot be had; says what was looked for.
        """
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                section.model, pretrained=section.pretrained, require_pretrained=True
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
        """L_CLIP of latents x0 (B, C, h, w), with their graph, against B prompts. Scalar."""
        images = self.decode(x0)
        return clip_loss(self.embed_images(images), self.embed_prompts(prompts), self.section.margin)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """(B, E) of images (B, 3, H, W) in [0, 1]: bicubic to CLIP's own size, then its normalisation."""
        resized = functional.interpolate(images, self.size, mode="bicubic", antialias=True, align_corners=False)
        return self.model.encode_image((resized - self.mean) / self.std)

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> torch.Tensor:
        """(B, E) of B prompts."""
        return self.model.encode_text(self.tokenize(prompts).to(self.mean.device))


def load_tiny_vae(path: str) -> AutoencoderTiny:
    """A frozen tiny decoder such as TAESD, from a diffusers folder or hub id: a tenth of the VAE's memory and time.

    Raises:
        ValueError: nothing is there, or something else; says what was looked for.
    """
    found = find_file(path)
    try:
        vae, info = AutoencoderTiny.from_pretrained(
            str(found) if found.is_dir() else path, use_safetensors=True, output_loading_info=True
        )
        if info["missing_keys"]:  # diffusers would go on with random weights in their place
            raise ValueError(f"{len(info['missing_keys'])} of its weights are missing")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"clip.decoder {path!r} cannot be loaded ({reason}); expected a diffusers folder or hub id of an "
            "AutoencoderTiny, such as madebyollin/taesd, or nothing for the teacher's own VAE"
        ) from error
    return vae.eval().requires_grad_(False)


def clip_weight(recipe: Recipe, iteration: int) -> float:
    """Weight of L_CLIP in `iteration`: linear from clip.weight to clip.final_weight, if that is set."""
    clip = recipe.clip
    last = clip.weight if clip.final_weight is None else clip.final_weight
    return clip.weight + (last - clip.weight) * iteration / recipe.loop.iterations


def judged_rows(share: float, batch: int) -> frozenset[int]:
    """Which rows of a batch CLIP judges: `share` of them, at least one, evenly spread over what splits the batch."""
    count = max(1, round(share * batch))
    return frozenset(number * batch // count for number in range(count))
