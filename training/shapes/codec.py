"""The small world's VAE: Stable Diffusion's AutoencoderKL, scaled down, 64x64 RGB to 8x8x4.

Dimensions: B images of (3, SIZE, SIZE) in [0, 1]; the VAE itself works on [-1, 1] as Stable Diffusion's does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training.shapes.scene import SIZE, render, sample_scenes

LATENT_CHANNELS = 4
LATENT_SIZE = SIZE // 8


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """How the VAE is trained. `noise` is the std, relative to the latents' own, of the noise put on them
    before decoding: it teaches the decoder to draw a clean image from latents that are slightly wrong."""

    iterations: int = 2200
    batch: int = 16
    lr: float = 2e-3
    kl: float = 1e-4
    noise: float = 0.3
    seed: int = 0


def new_vae() -> AutoencoderKL:
    """The untrained VAE (0.8M parameters). Channel counts are multiples of 32: hosts hard-code 32 groups."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=32,
        sample_size=SIZE,
        scaling_factor=1.0,
    )


def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Scaled mean latents (B, 4, 8, 8) of images in [0, 1]."""
    return vae.encode(images * 2 - 1).latent_dist.mode() * vae.config.scaling_factor


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1], (B, 3, SIZE, SIZE), of scaled latents."""
    return (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


def _step(vae: AutoencoderKL, images: torch.Tensor, recipe: CodecRecipe, noise: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Losses of one batch: {"loss", "l1", "mse", "kl"}, scalars."""
    target = images * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(target).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator)
        strength = noise * torch.rand(len(images), 1, 1, 1, generator=generator)
        latents = latents + strength * mean.detach().std() * torch.randn(mean.shape, generator=generator)
        decoded = vae.decode(latents).sample
    gap = decoded.float() - target
    l1, mse = gap.abs().mean(), gap.square().mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return {"loss": l1 + mse + recipe.kl * kl, "l1": l1, "mse": mse, "kl": kl}


def _batches(recipe: CodecRecipe, generator: torch.Generator) -> Iterator[torch.Tensor]:
    while True:
        yield from render(sample_scenes(recipe.batch * 32, generator)).split(recipe.batch)


def train_codec(recipe: CodecRecipe, log: Callable[[dict[str, float]], None] = lambda row: None) -> AutoencoderKL:
    """Train a VAE from nothing; its scaling factor, in the config, gives latents of unit variance.

    Args:
        recipe: the settings.
        log: gets a row of numbers now and then.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    vae = new_vae().train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=1e-4)
    warmup = max(1, min(100, recipe.iterations // 10))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, 1.0, warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, recipe.iterations - warmup), recipe.lr * 0.01),
        ],
        [warmup],
    )
    batches = _batches(recipe, generator)
    bar = tqdm(range(recipe.iterations), desc="vae", mininterval=2)
    for iteration in bar:
        noise = recipe.noise * min(1.0, 2 * iteration / recipe.iterations)
        losses = _step(vae, next(batches), recipe, noise, generator)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if iteration % 20 == 0 or iteration == recipe.iterations - 1:
            row = {name: round(float(value.detach()), 5) for name, value in losses.items()}
            bar.set_postfix(row)
            log({"stage": "vae", "iteration": iteration, **row})
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        latents = torch.cat([encode(vae, batch) for batch in render(sample_scenes(512, generator)).split(64)])
    vae.register_to_config(scaling_factor=round(1.0 / float(latents.std()), 6))
    return vae
