"""The VAE of the shapes world: Stable Diffusion's AutoencoderKL, scaled down, 64x64 RGB to 8x8x4.

Dimensions: B images of (3, SIZE, SIZE) in [0, 1]; like Stable Diffusion's, the VAE itself works on [-1, 1].

The latents are given (see latents.py): the encoder learns to write them and the decoder to read them. The decoder is
trained on perturbed latents (noisy, mixed with another scene's, too strong or too weak), so that it draws a clean image
from a model's imperfect latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from tqdm import tqdm

from experiments.shapes_teacher.latents import code, latents_of
from training.prompts.shapes.scene import ATTRIBUTES, SIZE, Scene, masks, render, sample_scenes

LATENT_CHANNELS = 4
LATENT_SIZE = SIZE // 8
LOGVAR = -10.0  # of the encoder's posterior: nearly no variance


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """How the VAE is trained.

    Perturbation of the decoder's input: `noise` is the largest std of the noise, `mix` the largest share of a
    neighbouring scene's latents, and the scale of the latents is 1 +- `gain`. `peak` is the weight of the mean error
    over the worst 2 % of pixels.
    """

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
    """The untrained VAE (0.8M parameters). Channel counts are multiples of 32, since hosts hard-code 32 groups."""
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


Losses = dict[str, torch.Tensor]
Log = Callable[[dict[str, float]], None]


def perturb(
    latents: torch.Tensor, others: torch.Tensor, recipe: CodecRecipe, generator: torch.Generator
) -> torch.Tensor:
    """Perturb latents (B, 4, 8, 8): mix them with those of other scenes, scale them, add noise.

    The share of the other scene varies over the image; its mean is at most `mix`.
    """
    rows = len(latents)

    def up_to(most: float) -> torch.Tensor:
        return most * torch.rand(rows, 1, 1, 1, generator=generator)

    uneven = F.interpolate(torch.rand(rows, 1, 3, 3, generator=generator), latents.shape[2:], mode="bilinear")
    uneven = 1 + up_to(1.0) * (uneven / uneven.mean(dim=(2, 3), keepdim=True) - 1)
    share = up_to(recipe.mix) * uneven * (torch.rand(rows, 1, 1, 1, generator=generator) < 0.7)
    gain = 1 - recipe.gain + up_to(2 * recipe.gain)
    noise = up_to(recipe.noise) * torch.randn(latents.shape, generator=generator)
    return gain * ((1 - share) * latents + share * others) + noise


def neighbours(scenes: list[Scene], generator: torch.Generator) -> list[Scene]:
    """Scenes that differ from the given ones in at most one attribute, as an undecided model would mix them."""
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
    """{"loss", "error", "logvar"}, scalars: the code must be written exactly and with nearly no variance."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images * 2 - 1).latent_dist
    error = (posterior.mean.float() - latents).square().mean()
    logvar = (posterior.logvar.float() - LOGVAR).square().mean()
    return {"loss": error + 1e-3 * logvar, "error": error, "logvar": logvar}


def fit(
    name: str,
    parameters: list[torch.nn.Parameter],
    lr: float,
    iterations: int,
    losses: Callable[[int], Losses],
    log: Log,
    *,
    betas: tuple[float, float] = (0.9, 0.98),
    after: Callable[[int], None] = lambda iteration: None,
) -> None:
    """Minimise losses(iteration)["loss"] with AdamW; all values of `losses` are logged every 20 iterations.

    The learning rate rises over up to 100 iterations, then falls as a cosine to a hundredth of `lr`. `after` is called
    after every iteration.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=1e-4)
    warmup = max(1, min(100, iterations // 10))
    falling = CosineAnnealingLR(optimizer, max(1, iterations - warmup), lr * 0.01)
    schedule = SequentialLR(optimizer, [LinearLR(optimizer, 0.05, 1.0, warmup), falling], [warmup])
    bar = tqdm(range(iterations), desc=name, mininterval=2)
    for iteration in bar:
        found = losses(iteration)
        if not torch.isfinite(found["loss"]):
            raise FloatingPointError(f"{name}: loss not finite at iteration {iteration}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        found["loss"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        after(iteration)
        if iteration % 20 == 0 or iteration == iterations - 1:
            row = {key: round(float(value.detach()), 5) for key, value in found.items()}
            bar.set_postfix(row)
            log({"stage": name, "iteration": iteration, **row})


def train_codec(recipe: CodecRecipe, log: Log) -> AutoencoderKL:
    """Train a VAE to write and to read the code of latents.py; its two halves are trained separately."""
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
        return _decoder_losses(vae, images, perturb(latents, others, recipe, generator), recipe)

    def encoder(iteration: int) -> Losses:
        images, latents, _ = batch()
        return _encoder_losses(vae, images, latents)

    parts = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    fit("vae decoder", parts, recipe.decoder_lr, recipe.decoder_iterations, decoder, log)
    parts = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
    fit("vae encoder", parts, recipe.encoder_lr, recipe.encoder_iterations, encoder, log)
    return vae.eval().requires_grad_(False)
