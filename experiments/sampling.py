"""Images from a model of a small world, with diffusers: many steps with guidance, a few, or one.

Dimensions: B images; latents (B, C, 8, 8) of unit variance; images (B, 3, 64, 64) in [0, 1].
Each image has its own seed, so its noise does not depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from snoopi_core.formats.checkpoint import OneStepRecipe
from training.evaluate.generate import maker
from training.models.backbone import Backbone
from training.models.guidance.few_steps import steered_x0
from training.models.guidance.methods import Method
from training.models.sampling import ddim_x0
from training.models.sampling_recipe import sampling_recipe
from training.models.text_embeddings import TextEmbeddings

_NULL = ""  # the null prompt of every world
_BATCH = 10  # images; with a hundred, the decoder takes twice as long for each
# Offsets of the seeds for later noise and for scales. The sum stays below 2^32: torch keeps no more on a CPU.
_NEXT_STEP, _SCALES = 10_000_000, 3_000_000_000


@dataclass(frozen=True, kw_only=True)
class _InBatches:
    """Makes images in batches of `_BATCH`."""

    model: Backbone

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        return torch.cat([self.model.decode(x0) for x0 in self.latents(prompts, seeds, negative).split(_BATCH)])

    @torch.no_grad()
    def latents(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        """x0 (B, C, 8, 8), before the decoder."""
        if len(prompts) != len(seeds):
            raise ValueError(f"expected one seed per prompt, got {len(prompts)} prompts and {len(seeds)} seeds")
        found = []
        for n in range(0, len(prompts), _BATCH):
            positive = self.model.encode(prompts[n : n + _BATCH])
            found.append(self._x0(positive, seeds[n : n + _BATCH], negative))
        return torch.cat(found)

    def _x0(self, positive: TextEmbeddings, seeds: list[int], negative: str | None) -> torch.Tensor:
        raise NotImplementedError

    def noise(self, seeds: list[int], step: int = 0) -> torch.Tensor:
        """The noise (B, C, 8, 8) from which a step begins."""
        size = self.model.network.config.sample_size
        return maker.noise([seed + step * _NEXT_STEP for seed in seeds], (self.model.latent_channels, size, size))


@dataclass(frozen=True, kw_only=True)
class ManySteps(_InBatches):
    """DDIM with classifier-free guidance, as the teacher is sampled. A negative replaces the null prompt.

    `cfg` may be a range: each image then has its own scale, uniform in the range.
    """

    steps: int = 20
    cfg: float | tuple[float, float] = 3.0

    def _x0(self, positive: TextEmbeddings, seeds: list[int], negative: str | None) -> torch.Tensor:
        null = self.model.encode([negative or _NULL])
        return ddim_x0(self.model, positive, null, self.noise(seeds), steps=self.steps, kappa=self._kappa(seeds))

    def _kappa(self, seeds: list[int]) -> float | torch.Tensor:
        if not isinstance(self.cfg, tuple):
            return self.cfg
        low, high = self.cfg
        drawn = [torch.rand((), generator=torch.Generator().manual_seed(_SCALES + seed)) for seed in seeds]
        return (low + (high - low) * torch.stack(drawn)).view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class FewSteps(_InBatches):
    """One or a few steps of a recipe. A negative acts by one of `training.models.guidance.methods.METHODS`."""

    recipe: OneStepRecipe
    method: Method
    steered: int | None = None  # in how many of the first steps the negative acts; None: in all

    def _x0(self, positive: TextEmbeddings, seeds: list[int], negative: str | None) -> torch.Tensor:
        away = None if negative is None else self.model.encode([negative])
        noises = partial(self.noise, seeds)
        return steered_x0(self.model, self.method, positive, away, self.recipe, noises, steered=self.steered)


def one_step(model: Backbone, method: str = "nasa", scale: float = 0.8) -> FewSteps:
    """A single step at the first timestep of the file's recipe, or at 999."""
    recipe = sampling_recipe(model, ())
    recipe = recipe.model_copy(update={"timesteps": recipe.timesteps[:1]})
    return FewSteps(model=model, recipe=recipe, method=Method(method, scale))


def few_steps(
    model: Backbone,
    timesteps: tuple[int, ...] = (),
    method: str = "none",
    scale: float = 0.0,
    *,
    steered: int | None = None,
) -> FewSteps:
    """The timesteps of the file's recipe, or others."""
    recipe = sampling_recipe(model, timesteps)
    return FewSteps(model=model, recipe=recipe, method=Method(method, scale), steered=steered)
