"""The small world's VAE: Stable Diffusion's AutoencoderKL, scaled down, 64x64 RGB to 8x8x4.

Dimensions: B images of (3, SIZE, SIZE) in [0, 1]; the VAE itself works on [-1, 1] as Stable Diffusion's does.

Trained in two phases: both halves together, then the decoder alone on latents that are slightly wrong
(noisy, mixed with another scene's, too strong or too weak), so that what a model nearly draws is drawn cleanly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training.shapes.optim import warmup_cosine
from training.shapes.scene import SIZE, render, sample_scenes

LATENT_CHANNELS = 4
LATENT_SIZE = SIZE // 8


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """How the VAE is trained. `noise`, `decoder_noise`: largest std of the noise on the latents, relative to their
    own, in the two phases; `mix`: largest share of another scene's latents; `gain`: the latents' strength is
    1 +- this; `peak`: weight of the mean error over the worst 2 % of pixels, which small channel counts
    under 32 normalisation groups would otherwise spoil with one bright spot."""

    iterations: int = 2200
    decoder_iterations: int = 3000
    batch: int = 16
    lr: float = 2e-3
    decoder_lr: float = 1.5e-3
    kl: float = 1e-4
    noise: float = 0.3
    decoder_noise: float = 0.5
    mix: float = 0.35
    gain: float = 0.2
    peak: float = 0.1
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


Losses = dict[str, torch.Tensor]
Log = Callable[[dict[str, float]], None]


def _joint_losses(
    vae: AutoencoderKL, images: torch.Tensor, recipe: CodecRecipe, noise: float, generator: torch.Generator
) -> Losses:
    """Phase 1: {"loss", "l1", "mse", "kl"}, scalars."""
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


def spoil(latents: torch.Tensor, recipe: CodecRecipe, generator: torch.Generator) -> torch.Tensor:
    """Latents (B, C, h, w) of unit variance made slightly wrong; a row always keeps the largest share of itself."""

    def upto(most: float) -> torch.Tensor:
        return most * torch.rand(len(latents), 1, 1, 1, generator=generator)

    share = upto(recipe.mix) * (torch.rand(len(latents), 1, 1, 1, generator=generator) < 0.5)
    gain = 1 - recipe.gain + upto(2 * recipe.gain)
    noise = upto(recipe.decoder_noise) * torch.randn(latents.shape, generator=generator)
    return gain * ((1 - share) * latents + share * latents.roll(1, 0)) + noise


def _decoder_losses(vae: AutoencoderKL, images: torch.Tensor, latents: torch.Tensor, recipe: CodecRecipe) -> Losses:
    """Phase 2: {"loss", "l1", "mse", "peak"}, scalars; latents (B, C, h, w) scaled."""
    with torch.autocast("cpu", torch.bfloat16):
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
    gap = decoded.float() - (images * 2 - 1)
    l1, mse = gap.abs().mean(), gap.square().mean()
    pixels = gap.abs().mean(dim=1).flatten(1)  # (B, P)
    peak = pixels.topk(pixels.shape[1] // 50, dim=1).values.mean()
    return {"loss": l1 + mse + recipe.peak * peak, "l1": l1, "mse": mse, "peak": peak}


def _fit(
    name: str,
    parameters: list[torch.nn.Parameter],
    lr: float,
    iterations: int,
    losses: Callable[[int], Losses],
    log: Log,
) -> None:
    """AdamW with a warm-up and a cosine over `iterations` calls of `losses(iteration)`."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=1e-4)
    schedule = warmup_cosine(optimizer, lr, iterations)
    bar = tqdm(range(iterations), desc=name, mininterval=2)
    for iteration in bar:
        found = losses(iteration)
        optimizer.zero_grad(set_to_none=True)
        found["loss"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if iteration % 20 == 0 or iteration == iterations - 1:
            row = {key: round(float(value.detach()), 5) for key, value in found.items()}
            bar.set_postfix(row)
            log({"stage": name, "iteration": iteration, **row})


def train_joint(recipe: CodecRecipe, log: Log) -> AutoencoderKL:
    """Phase 1: encoder and decoder from nothing; the scaling factor, in the config, gives latents of unit variance."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    vae = new_vae().train()
    queue: list[torch.Tensor] = []

    def losses(iteration: int) -> Losses:
        if not queue:
            queue.extend(render(sample_scenes(recipe.batch * 32, generator)).split(recipe.batch))
        noise = recipe.noise * min(1.0, 2 * iteration / recipe.iterations)
        return _joint_losses(vae, queue.pop(0), recipe, noise, generator)

    _fit("vae", list(vae.parameters()), recipe.lr, recipe.iterations, losses, log)
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        latents = torch.cat([encode(vae, batch) for batch in render(sample_scenes(512, generator)).split(64)])
    vae.register_to_config(scaling_factor=round(1.0 / float(latents.std()), 6))
    return vae


def train_decoder(vae: AutoencoderKL, recipe: CodecRecipe, log: Log) -> AutoencoderKL:
    """Phase 2: the decoder alone, in place; the latent space stays what it is."""
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    queue: list[tuple[torch.Tensor, torch.Tensor]] = []

    def losses(iteration: int) -> Losses:
        if not queue:
            images = render(sample_scenes(recipe.batch * 32, generator)).split(recipe.batch)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                queue.extend((batch, encode(vae, batch).float()) for batch in images)
        images, latents = queue.pop(0)
        return _decoder_losses(vae, images, spoil(latents, recipe, generator), recipe)

    for weight in trained:
        weight.requires_grad_(True)
    vae.train()
    _fit("vae decoder", trained, recipe.decoder_lr, recipe.decoder_iterations, losses, log)
    return vae.eval().requires_grad_(False)


def train_codec(recipe: CodecRecipe, log: Log = lambda row: None) -> AutoencoderKL:
    """Train a VAE from nothing, both phases.

    Args:
        recipe: the settings.
        log: gets a row of numbers now and then.
    """
    vae = train_joint(recipe, log)
    return train_decoder(vae, recipe, log) if recipe.decoder_iterations else vae
