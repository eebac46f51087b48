"""The small world's VAE: Stable Diffusion's AutoencoderKL, scaled down, 64x64 RGB to 8x8x4.

Dimensions: B images of (3, SIZE, SIZE) in [0, 1]; the VAE itself works on [-1, 1] as Stable Diffusion's does.

The latents are given (see `latents`): the encoder learns to write them, the decoder to read them. The decoder
gets them slightly wrong (noisy, mixed with another scene's, too strong or too weak), so that what a model
nearly draws is drawn cleanly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import tqdm

from experiments.shapes_teacher.latents import code, latents_of
from experiments.shapes_teacher.optim import warmup_cosine
from training.prompts.shapes.scene import ATTRIBUTES, SIZE, Scene, masks, render, sample_scenes

LATENT_CHANNELS = 4
LATENT_SIZE = SIZE // 8
LOGVAR = -10.0  # of the encoder's posterior: next to nothing


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """How the VAE is trained. On the decoder's way in, `noise` is the largest std of the noise on the latents,
    `mix` the largest share of a neighbouring scene's latents, and the latents' strength is 1 +- `gain`;
    `peak` weighs the mean error over the worst 2 % of pixels."""

    encoder_iterations: int = 800
    decoder_iterations: int = 4400
    batch: int = 16
    encoder_lr: float = 2e-3
    decoder_lr: float = 2e-3
    noise: float = 0.5
    mix: float = 0.45
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


def spoil(latents: torch.Tensor, others: torch.Tensor, recipe: CodecRecipe, generator: torch.Generator) -> torch.Tensor:
    """Latents (B, 4, 8, 8) made slightly wrong: mixed with those of other scenes, too strong or too weak, noisy.

    The share of the other scene changes from place to place, and its mean over the image is at most `mix`.
    """
    rows = len(latents)

    def upto(most: float) -> torch.Tensor:
        return most * torch.rand(rows, 1, 1, 1, generator=generator)

    uneven = F.interpolate(torch.rand(rows, 1, 3, 3, generator=generator), latents.shape[2:], mode="bilinear")
    uneven = 1 + upto(1.0) * (uneven / uneven.mean(dim=(2, 3), keepdim=True) - 1)
    share = upto(recipe.mix) * uneven * (torch.rand(rows, 1, 1, 1, generator=generator) < 0.7)
    gain = 1 - recipe.gain + upto(2 * recipe.gain)
    noise = upto(recipe.noise) * torch.randn(latents.shape, generator=generator)
    return gain * ((1 - share) * latents + share * others) + noise


def neighbours(scenes: list[Scene], generator: torch.Generator) -> list[Scene]:
    """Scenes that differ from the given ones in one attribute: what a model that cannot decide mixes."""
    others = sample_scenes(len(scenes), generator)
    names = torch.randint(len(ATTRIBUTES), (len(scenes),), generator=generator).tolist()
    changed = [list(ATTRIBUTES)[n] for n in names]
    return [replace(a, **{name: b.value(name)}) for a, b, name in zip(scenes, others, changed, strict=True)]


def _decoder_losses(vae: AutoencoderKL, images: torch.Tensor, latents: torch.Tensor, recipe: CodecRecipe) -> Losses:
    """{"loss", "l1", "mse", "peak"}, scalars, of decoding latents (B, 4, 8, 8)."""
    with torch.autocast("cpu", torch.bfloat16):
        decoded = vae.decode(latents).sample
    gap = decoded.float() - (images * 2 - 1)
    l1, mse = gap.abs().mean(), gap.square().mean()
    pixels = gap.abs().mean(dim=1).flatten(1)  # (B, P)
    peak = pixels.topk(pixels.shape[1] // 50, dim=1).values.mean()
    return {"loss": l1 + mse + recipe.peak * peak, "l1": l1, "mse": mse, "peak": peak}


def _encoder_losses(vae: AutoencoderKL, images: torch.Tensor, latents: torch.Tensor) -> Losses:
    """{"loss", "error", "logvar"}, scalars: the code is to be written exactly and with hardly any spread."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images * 2 - 1).latent_dist
    error = (posterior.mean.float() - latents).square().mean()
    logvar = (posterior.logvar.float() - LOGVAR).square().mean()
    return {"loss": error + 1e-3 * logvar, "error": error, "logvar": logvar}


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


def train_codec(recipe: CodecRecipe, log: Log = lambda row: None) -> AutoencoderKL:
    """Train a VAE to write and to read the code of `latents`; its two halves never meet.

    Args:
        recipe: the settings.
        log: gets a row of numbers now and then.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    vae = new_vae().train()
    queue: list[tuple[torch.Tensor, ...]] = []

    def batch() -> tuple[torch.Tensor, ...]:
        if not queue:
            scenes = sample_scenes(recipe.batch * 32, generator)
            images, others = render(scenes), latents_of(neighbours(scenes, generator))
            columns = (images, code(images, masks(scenes)), others)
            queue.extend(zip(*(column.split(recipe.batch) for column in columns), strict=True))
        return queue.pop()

    def decoder(iteration: int) -> Losses:
        images, latents, others = batch()
        return _decoder_losses(vae, images, spoil(latents, others, recipe, generator), recipe)

    def encoder(iteration: int) -> Losses:
        images, latents, _ = batch()
        return _encoder_losses(vae, images, latents)

    parts = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    _fit("vae decoder", parts, recipe.decoder_lr, recipe.decoder_iterations, decoder, log)
    parts = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
    _fit("vae encoder", parts, recipe.encoder_lr, recipe.encoder_iterations, encoder, log)
    return vae.eval().requires_grad_(False)
