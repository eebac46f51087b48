"""Images from a model of the shapes world, with diffusers: many steps with guidance, a few, or one.

Dimensions: B images; latents (B, 4, 8, 8) of unit variance; images (B, 3, 64, 64) in [0, 1].
Each image has its own seed, so its noise does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from experiments.shapes.measure import Generate
from snoopi_core.formats.checkpoint import OneStepRecipe
from training.evaluate.generate.noise import noise
from training.models.backbone import Backbone
from training.models.guidance.few_steps import steered_x0
from training.models.guidance.methods import Method
from training.models.sampling import ddim_x0
from training.models.sampling_recipe import sampling_recipe
from training.prompts.shapes.captions import NULL_PROMPT

BATCH = 100
_AT_ONCE = 10  # images; with a hundred, the decoder takes twice as long for each
# Offsets of the seeds for later noise and for scales. The sum stays below 2^32: torch keeps no more on a CPU.
_NEXT_STEP, _SCALES = 10_000_000, 3_000_000_000


def in_tens(generate: Generate) -> Generate:
    """`generate` in batches of ten, which is faster."""

    def make(prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        starts = range(0, len(prompts), _AT_ONCE)
        return torch.cat([generate(prompts[n : n + _AT_ONCE], seeds[n : n + _AT_ONCE], negative) for n in starts])

    return make


@dataclass(frozen=True, kw_only=True)
class ManySteps:
    """DDIM with classifier-free guidance, as the teacher is sampled. A negative replaces the null prompt.

    `cfg` may be a range: each image then has its own scale, uniform in the range.
    """

    model: Backbone
    steps: int = 20
    cfg: float | tuple[float, float] = 3.0

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        return _in_batches(self._batch, prompts, seeds, negative)

    def _batch(self, prompts: list[str], seeds: list[int], negative: str | None) -> torch.Tensor:
        model, z = self.model, noise(seeds, _latent_shape(self.model))
        null = model.encode([negative or NULL_PROMPT])
        return model.decode(ddim_x0(model, model.encode(prompts), null, z, steps=self.steps, kappa=self._kappa(seeds)))

    def _kappa(self, seeds: list[int]) -> float | torch.Tensor:
        if not isinstance(self.cfg, tuple):
            return self.cfg
        low, high = self.cfg
        drawn = [torch.rand((), generator=torch.Generator().manual_seed(_SCALES + seed)) for seed in seeds]
        return (low + (high - low) * torch.stack(drawn)).view(-1, 1, 1, 1)


def one_step(model: Backbone) -> OneStepRecipe:
    """A single step at the first timestep of the file's recipe, or at 999."""
    recipe = sampling_recipe(model, ())
    return recipe.model_copy(update={"timesteps": recipe.timesteps[:1]})


@dataclass(frozen=True, kw_only=True)
class FewSteps:
    """One or a few steps of a recipe. A negative acts by one of `training.models.guidance.methods.METHODS`."""

    model: Backbone
    recipe: OneStepRecipe
    method: Method

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        return _in_batches(self._batch, prompts, seeds, negative)

    def _batch(self, prompts: list[str], seeds: list[int], negative: str | None) -> torch.Tensor:
        model = self.model
        away = None if negative is None else model.encode([negative])

        def z(step: int) -> torch.Tensor:
            return noise([seed + step * _NEXT_STEP for seed in seeds], _latent_shape(model))

        return model.decode(steered_x0(model, self.method, model.encode(prompts), away, self.recipe, z))


@dataclass(frozen=True, kw_only=True)
class OneStep:
    """One call of the network (see `one_step`). A negative acts by `method` with strength `scale`."""

    model: Backbone
    method: str = "nasa"
    scale: float = 0.8

    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        generate = FewSteps(model=self.model, recipe=one_step(self.model), method=Method(self.method, self.scale))
        return generate(prompts, seeds, negative)


def _latent_shape(model: Backbone) -> tuple[int, int, int]:
    size = model.network.config.sample_size
    return model.latent_channels, size, size


def _in_batches(
    make: Callable[[list[str], list[int], str | None], torch.Tensor],
    prompts: list[str],
    seeds: list[int],
    negative: str | None,
) -> torch.Tensor:
    if len(prompts) != len(seeds):
        raise ValueError(f"expected one seed per prompt, got {len(prompts)} prompts and {len(seeds)} seeds")
    return torch.cat(
        [make(prompts[n : n + BATCH], seeds[n : n + BATCH], negative) for n in range(0, len(prompts), BATCH)]
    )
