"""`python -m experiments.avatars_teacher.codec`: train the autoencoder of the avatars' world.

It is Stable Diffusion's AutoencoderKL, scaled down: 64x64 RGB to 8x8 latents. Dimensions: B images (B, 3, 64, 64) in
[0, 1]; like Stable Diffusion's, the networks themselves work on [-1, 1].

The latents are given (see latents.py): the encoder learns to write them and the decoder to read them, each by itself.
The decoder reads them with noise, mixed with another picture's, too strong or too weak, so that it draws a clean
picture from a network's imperfect latents.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from experiments.avatars_teacher.data import COUNT, Pictures, load
from experiments.avatars_teacher.latents import CHANNELS, load_code
from experiments.diffusion_teacher import as_shipped
from experiments.training_loop import Losses, Training, update_average
from training.distill.rng import generator
from training.prompts.avatars.scene import SIZE

LOGVAR = -10.0  # of the encoder's posterior: nearly no variance


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """How the autoencoder is trained.

    Perturbation of the decoder's input: `noise` is the largest std of the noise, `mix` the largest share of another
    picture's latents, and the scale of the latents is 1 +- `gain`. `edges`: weight of the error in the differences
    between neighbouring pixels. `peak`: weight of the mean error over the worst 2 % of pixels.
    """

    channels: tuple[int, ...] = (32, 32, 64, 64)
    decoder_iterations: int = 4800
    encoder_iterations: int = 1500
    batch: int = 16
    lr: float = 2e-3
    ema: float = 0.998
    noise: float = 0.4
    mix: float = 0.2
    gain: float = 0.1
    edges: float = 0.5
    peak: float = 0.1
    seed: int = 0


def new_vae(recipe: CodecRecipe) -> AutoencoderKL:
    """The untrained autoencoder. Channel counts are multiples of 32, since hosts hard-code 32 groups."""
    levels = len(recipe.channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.channels,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=32,
        sample_size=SIZE,
        scaling_factor=1.0,
    )


def perturb(latents: torch.Tensor, recipe: CodecRecipe, rng: torch.Generator) -> torch.Tensor:
    """Latents (B, C, h, w) as a network might leave them: mixed with the next picture's, too strong or weak, noisy.

    A fifth of them stay as they are.
    """

    def up_to(most: float) -> torch.Tensor:
        return most * torch.rand(len(latents), 1, 1, 1, generator=rng)

    changed = (up_to(1.0) < 0.8).float()
    share = changed * up_to(recipe.mix) * (up_to(1.0) < 0.5)
    gain = 1 + changed * (up_to(2 * recipe.gain) - recipe.gain)
    noise = changed * up_to(recipe.noise) * torch.randn(latents.shape, generator=rng)
    return gain * ((1 - share) * latents + share * latents.roll(1, dims=0)) + noise


def image_losses(images: torch.Tensor, decoded: torch.Tensor, recipe: CodecRecipe) -> Losses:
    """{"loss", "l1", "edges", "peak"}, scalars; errors are on the scale of [0, 1]."""
    gap = decoded - images
    l1 = gap.abs().mean()
    edges = (gap.diff(dim=2).abs().mean() + gap.diff(dim=3).abs().mean()) / 2
    pixels = gap.abs().mean(dim=1).flatten(1)
    peak = pixels.topk(pixels.shape[1] // 50, dim=1).values.mean()
    loss = l1 + gap.square().mean() + recipe.edges * edges + recipe.peak * peak
    return {"loss": loss, "l1": l1, "edges": edges, "peak": peak}


@torch.no_grad()
def measure(vae: AutoencoderKL, pictures: Pictures, count: int = 500) -> dict[str, float]:
    """{"l1", "psnr"}: of `count` pictures that were held back, after encoding and decoding, as 8-bit images."""
    l1, square = [], []
    count = min(count, pictures.held_back)
    for start in range(0, count, 50):
        images = pictures.batch(torch.arange(start, min(start + 50, count)))
        decoded = vae.decode(vae.encode(images * 2 - 1).latent_dist.mean).sample / 2 + 0.5
        gap = (decoded.clamp(0, 1) * 255).round() / 255 - images
        l1.append(gap.abs().mean(dim=(1, 2, 3)))
        square.append(gap.square().mean(dim=(1, 2, 3)))
    psnr = -10 * torch.cat(square).clamp_min(1e-8).log10()
    return {"l1": float(torch.cat(l1).mean()), "psnr": float(psnr.mean()), "worst psnr": float(psnr.quantile(0.02))}


def _decoder_losses(vae: AutoencoderKL, images: torch.Tensor, latents: torch.Tensor, recipe: CodecRecipe) -> Losses:
    with torch.autocast("cpu", torch.bfloat16):
        decoded = vae.decode(latents).sample
    return image_losses(images, decoded.float() / 2 + 0.5, recipe)


def _encoder_losses(vae: AutoencoderKL, images: torch.Tensor, latents: torch.Tensor) -> Losses:
    """{"loss", "error", "logvar"}, scalars: the code must be written exactly and with nearly no variance."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images * 2 - 1).latent_dist
    error = (posterior.mean.float() - latents).square().mean()
    logvar = (posterior.logvar.float() - LOGVAR).square().mean()
    return {"loss": error + 1e-3 * logvar, "error": error, "logvar": logvar}


def train_half(folder: Path, half: str, pictures: Pictures, recipe: CodecRecipe, *, save_every: float = 60.0) -> bool:
    """Train, or continue, the "decoder" or the "encoder" in `folder`. Whether it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    code = load_code(folder / "code.safetensors", pictures)
    torch.manual_seed(recipe.seed)
    vae = new_vae(recipe).train()
    parts = {"decoder": (vae.decoder, vae.post_quant_conv), "encoder": (vae.encoder, vae.quant_conv)}[half]
    trained = torch.nn.ModuleList(parts)
    average = copy.deepcopy(trained).requires_grad_(False)
    training = Training(
        folder=folder,
        name=half,
        networks={"trained": trained, "average": average},
        optimizer=torch.optim.AdamW(trained.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=1e-4),
        iterations=recipe.decoder_iterations if half == "decoder" else recipe.encoder_iterations,
        save_every=save_every,
    )
    training.resume()

    def losses(iteration: int) -> Losses:
        rng = generator(recipe.seed, half, iteration)
        images = pictures.batch(pictures.sample(recipe.batch, rng))
        latents = code.encode(images)
        if half == "encoder":
            return _encoder_losses(vae, images, latents)
        return _decoder_losses(vae, images, perturb(latents, recipe, rng), recipe)

    return training.run(losses, lambda iteration: update_average(average, trained, recipe.ema, iteration))


def finished_vae(folder: Path, recipe: CodecRecipe) -> AutoencoderKL:
    """The autoencoder, of the averages that both halves have reached.

    Raises:
        FileNotFoundError: a half has not been trained.
    """
    vae = new_vae(recipe)
    for half, parts in (("decoder", (vae.decoder, vae.post_quant_conv)), ("encoder", (vae.encoder, vae.quant_conv))):
        state = torch.load(folder / f"{half}.pt", map_location="cpu", weights_only=True)["networks"]["average"]
        torch.nn.ModuleList(parts).load_state_dict(state)
    return as_shipped(vae).eval().requires_grad_(False)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars_teacher.codec", description=__doc__)
    parser.add_argument("--pictures", type=Path, default=Path("runs/avatars/pictures"))
    parser.add_argument("--count", type=int, default=COUNT, help="pictures to learn from")
    parser.add_argument("--out", type=Path, default=Path("runs/avatars"))
    parser.add_argument("--only", choices=("decoder", "encoder"), help="train this half alone")
    parser.add_argument("--iterations", type=int, help="of the decoder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    recipe = CodecRecipe(**({"decoder_iterations": arguments.iterations} if arguments.iterations else {}))
    pictures = load(arguments.pictures, arguments.count)
    halves = [arguments.only] if arguments.only else ["decoder", "encoder"]
    for half in halves:
        if not train_half(arguments.out, half, pictures, recipe):
            return
    if all((arguments.out / f"{half}.pt").is_file() for half in ("decoder", "encoder")):
        print("autoencoder:", measure(finished_vae(arguments.out, recipe), pictures))


if __name__ == "__main__":
    main()
