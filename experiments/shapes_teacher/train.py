"""The teacher of the shapes world: Stable Diffusion 1.5's UNet, scaled down, trained by v-prediction.

Dimensions: B batch rows; latents are (B, 4, 8, 8) of unit variance, text embeddings (B, 77, 64).
alpha_t, sigma_t: x_t = alpha_t x0 + sigma_t eps of Stable Diffusion's schedule, fp32.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DConditionModel

from experiments.clip_text import WIDTH, TextCache
from experiments.diffusion_teacher import CentringPenalty, new_scheduler
from experiments.shapes_teacher.codec import LATENT_CHANNELS, LATENT_SIZE, Log, Losses, fit
from experiments.shapes_teacher.latents import latents_of
from experiments.training_loop import update_average
from training.prompts.shapes.captions import training_caption
from training.prompts.shapes.scene import sample_scenes


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """How the teacher is trained.

    `high_noise_first`: share of the iterations, at the start, that use only t in [850, 999], where the text decides the
    image; later, `high_noise_share` of each batch does. `centring`: weight of the penalty on the mean cross-attention
    response (see `CentringPenalty`).
    """

    iterations: int = 3600
    batch: int = 32
    lr: float = 1.5e-3
    ema: float = 0.998
    scenes: int = 16384
    high_noise_first: float = 0.25
    high_noise_share: float = 0.35
    centring: float = 0.02
    channels: tuple[int, ...] = (64, 64)
    heads: int = 4
    seed: int = 0


def new_unet(recipe: TeacherRecipe) -> UNet2DConditionModel:
    """The untrained UNet. It has cross-attention at every level, because NASA acts there."""
    levels = len(recipe.channels)
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=recipe.channels,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=recipe.heads,
        norm_num_groups=32,
    )


def _timesteps(recipe: TeacherRecipe, iteration: int, generator: torch.Generator) -> torch.Tensor:
    """Timesteps (B,), int64."""
    anywhere = torch.randint(0, 1000, (recipe.batch,), generator=generator)
    high = torch.randint(850, 1000, (recipe.batch,), generator=generator)
    if iteration < recipe.high_noise_first * recipe.iterations:
        return high
    return torch.where(torch.rand(recipe.batch, generator=generator) < recipe.high_noise_share, high, anywhere)


def train_teacher(recipe: TeacherRecipe, text: TextCache, log: Log) -> UNet2DConditionModel:
    """Train a UNet from scratch and return its moving average.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    scenes = sample_scenes(recipe.scenes, generator)
    latents = torch.cat([latents_of(scenes[n : n + 256]) for n in range(0, recipe.scenes, 256)])
    torch.manual_seed(recipe.seed)
    unet = new_unet(recipe).train()
    average = copy.deepcopy(unet).requires_grad_(False)
    centring = CentringPenalty(unet)
    alpha_bar = new_scheduler().alphas_cumprod.float()

    def losses(iteration: int) -> Losses:
        rows = torch.randint(recipe.scenes, (recipe.batch,), generator=generator)
        x0 = latents[rows]
        context = text([training_caption(scenes[row], generator) for row in rows.tolist()])
        t = _timesteps(recipe, iteration, generator)
        alpha_t, sigma_t = alpha_bar[t].sqrt()[:, None, None, None], (1 - alpha_bar[t]).sqrt()[:, None, None, None]
        eps = torch.randn(x0.shape, generator=generator)
        v = unet(alpha_t * x0 + sigma_t * eps, t, context).sample
        mse, penalty = (v - (alpha_t * eps - sigma_t * x0)).square().mean(), centring.pop_penalty()
        return {"loss": mse + recipe.centring * penalty, "mse": mse, "centring": penalty}

    after = partial(update_average, average, unet, recipe.ema)
    parameters = list(unet.parameters())
    fit("teacher", parameters, recipe.lr, recipe.iterations, losses, log, betas=(0.9, 0.999), after=after)
    return average.eval()
