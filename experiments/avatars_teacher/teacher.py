"""`python -m experiments.avatars_teacher.teacher`: train the teacher of the avatars' world.

Stable Diffusion 1.5's UNet, scaled down. Dimensions: B batch rows; latents (B, 16, 8, 8) of unit variance; text
embeddings (B, 77, 48). alpha_t, sigma_t: x_t = alpha_t x0 + sigma_t eps of Stable Diffusion's schedule, fp32.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.avatars_teacher.data import COUNT, Pictures, load
from experiments.avatars_teacher.latents import CELL, CHANNELS, load_code
from experiments.avatars_teacher.text import WIDTH, load_text_encoder
from experiments.clip_text import token_ids
from experiments.diffusion_teacher import CentringPenalty, as_shipped, new_scheduler
from experiments.training_loop import Losses, Training, update_average
from training.distill.rng import generator
from training.prompts.avatars.captions import training_caption
from training.prompts.avatars.scene import SIZE


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """How the teacher is trained.

    prediction: "v_prediction" or "epsilon". `high_noise`: share of each batch with t in [850, 999], where the text
    decides the picture. `centring`: weight of the penalty on the mean cross-attention response (`CentringPenalty`).
    """

    prediction: str = "v_prediction"
    channels: tuple[int, ...] = (96, 96)
    layers: int = 1
    heads: int = 4
    iterations: int = 6_000
    batch: int = 48
    lr: float = 1e-3
    ema: float = 0.9995
    high_noise: float = 0.3
    centring: float = 0.02
    seed: int = 0

    @property
    def name(self) -> str:
        """What its state and its losses are called."""
        return "teacher" if self.prediction == "v_prediction" else "teacher-epsilon"


def new_unet(recipe: TeacherRecipe) -> UNet2DConditionModel:
    """The untrained UNet. It has cross-attention at every level, because NASA acts there."""
    levels = len(recipe.channels)
    return UNet2DConditionModel(
        sample_size=SIZE // CELL,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=recipe.channels,
        layers_per_block=recipe.layers,
        cross_attention_dim=WIDTH,
        attention_head_dim=recipe.heads,
        norm_num_groups=32,
    )


def timesteps(recipe: TeacherRecipe, rng: torch.Generator) -> torch.Tensor:
    """Timesteps (B,), int64, spread evenly over the batch."""
    even = (torch.arange(recipe.batch) + torch.rand(recipe.batch, generator=rng)) / recipe.batch
    high = torch.rand(recipe.batch, generator=rng) < recipe.high_noise
    return torch.where(high, 850 + 150 * torch.rand(recipe.batch, generator=rng), 1000 * even).long().clamp_max(999)


def train_teacher(folder: Path, pictures: Pictures, recipe: TeacherRecipe, *, save_every: float = 60.0) -> bool:
    """Train, or continue, the teacher in `folder`. Whether it is done."""
    encoder = load_text_encoder(folder)
    latents = load_code(folder / "code.safetensors", pictures).encode_all(pictures)
    torch.manual_seed(recipe.seed)
    unet = new_unet(recipe).train()
    average = copy.deepcopy(unet).requires_grad_(False)
    training = Training(
        folder=folder,
        name=recipe.name,
        networks={"unet": unet, "average": average},
        optimizer=torch.optim.AdamW(unet.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-3),
        iterations=recipe.iterations,
        save_every=save_every,
    )
    training.resume()
    centring = CentringPenalty(unet)
    alpha_bar = new_scheduler(recipe.prediction).alphas_cumprod.float()

    def losses(iteration: int) -> Losses:
        rng = generator(recipe.seed, "teacher", iteration)
        rows = pictures.sample(recipe.batch, rng)
        x0 = latents[rows]
        captions = [training_caption(pictures.scenes[row], rng) for row in rows.tolist()]
        with torch.no_grad():
            context = encoder(token_ids(captions)).last_hidden_state
        t = timesteps(recipe, rng)
        alpha_t, sigma_t = alpha_bar[t].sqrt()[:, None, None, None], (1 - alpha_bar[t]).sqrt()[:, None, None, None]
        eps = torch.randn(x0.shape, generator=rng)
        x_t = alpha_t * x0 + sigma_t * eps
        with torch.autocast("cpu", torch.bfloat16):
            out = unet(x_t, t, context).sample.float()
        # A predicted eps is weighted as v is: v = (eps - sigma_t x_t) / alpha_t.
        target, weight = (eps, 1 / alpha_t) if recipe.prediction == "epsilon" else (alpha_t * eps - sigma_t * x0, 1)
        gap = weight * (out - target)
        mse, penalty = gap.square().mean(), centring.pop_penalty()
        return {"loss": mse + recipe.centring * penalty, "mse": mse, "centring": penalty}

    with sdpa_kernel(SDPBackend.MATH):  # faster on a CPU, for sequences this short
        return training.run(losses, lambda iteration: update_average(average, unet, recipe.ema, iteration))


def finished_unet(folder: Path, recipe: TeacherRecipe) -> UNet2DConditionModel:
    """The teacher, of the average that it has reached.

    Raises:
        FileNotFoundError: its training has not begun.
    """
    unet = new_unet(recipe)
    state = torch.load(folder / f"{recipe.name}.pt", map_location="cpu", weights_only=True)["networks"]["average"]
    unet.load_state_dict(state)
    return as_shipped(unet).eval().requires_grad_(False)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars_teacher.teacher", description=__doc__)
    parser.add_argument("--pictures", type=Path, default=Path("runs/avatars/pictures"))
    parser.add_argument("--count", type=int, default=COUNT, help="pictures to learn from")
    parser.add_argument("--out", type=Path, default=Path("runs/avatars"))
    parser.add_argument("--iterations", type=int, default=TeacherRecipe().iterations)
    parser.add_argument("--prediction", choices=("v_prediction", "epsilon"), default=TeacherRecipe().prediction)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    recipe = TeacherRecipe(iterations=arguments.iterations, prediction=arguments.prediction)
    train_teacher(arguments.out, load(arguments.pictures, arguments.count), recipe)


if __name__ == "__main__":
    main()
