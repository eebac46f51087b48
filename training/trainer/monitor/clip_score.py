"""How well samples match their prompts, by the CLIP that the run has loaded for its loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from training.distill.clip_loss import ClipLoss


@torch.no_grad()
def clip_score(clip: ClipLoss, tiles: torch.Tensor, prompts: Sequence[str]) -> float:
    """Mean cosine of images and their prompts, -1 to 1.

    Images that are drawn at 192 pixels are enlarged for CLIP, so the number is for comparisons within a run. It is no
    independent judge: the loss raises this very figure.

    Args:
        tiles: K images of each of P prompts as shown, (P, K, 3, H, W) uint8.
    """
    device = clip.mean.device
    text = clip.embed_prompts(list(prompts)).float()
    cosines = [
        torch.cosine_similarity(clip.embed_images(images.to(device) / 255).float(), text[n : n + 1])
        for n, images in enumerate(tiles)
    ]
    return torch.cat(cosines).mean().item()
