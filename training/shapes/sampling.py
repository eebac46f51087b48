"""Images from a model of the small world, in diffusers: many steps with guidance, or one step.

Dimensions: B images; latents (B, 4, 8, 8) of unit variance; images (B, 3, 64, 64) in [0, 1].
Every image has a seed of its own, so its noise does not depend on the batch it is made in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from training.diffusers_nasa import nasa
from training.sampling import ddim_x0, one_step_x0
from training.shapes.captions import NULL_PROMPT
from training.text import Text

if TYPE_CHECKING:
    from training.backbone import Backbone

BATCH = 100
LAST_TIMESTEP = 999
Method = Literal["nasa", "cfg", "embeddings"]


def noise(seeds: list[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Standard normal latents (B, *shape), one seed an image."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@dataclass(frozen=True, kw_only=True)
class ManySteps:
    """DDIM with classifier-free guidance, as the teacher makes an image. A negative replaces the null prompt."""

    model: Backbone
    steps: int = 20
    cfg: float = 3.0

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        return _in_batches(self._batch, prompts, seeds, negative)

    def _batch(self, prompts: list[str], seeds: list[int], negative: str | None) -> torch.Tensor:
        model, z = self.model, noise(seeds, _latent_shape(self.model))
        null = model.encode([negative or NULL_PROMPT])
        return model.decode(ddim_x0(model, model.encode(prompts), null, z, steps=self.steps, kappa=self.cfg))


@dataclass(frozen=True, kw_only=True)
class OneStep:
    """One call of the network, at `timestep` or by the file's recipe, else at 999.

    A negative prompt acts by `method` with strength `scale`.

    nasa: Z+ - scale Z- in every cross-attention. cfg: x0(neg) + scale (x0(pos) - x0(neg)).
    embeddings: the text embeddings e+ - scale e-.
    """

    model: Backbone
    timestep: int | None = None
    method: Method = "nasa"
    scale: float = 0.8

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        return _in_batches(self._batch, prompts, seeds, negative)

    def _batch(self, prompts: list[str], seeds: list[int], negative: str | None) -> torch.Tensor:
        model = self.model
        z, positive = noise(seeds, _latent_shape(model)), model.encode(prompts)
        if negative is None:
            return model.decode(self._x0(z, positive))
        away = model.encode([negative])
        if self.method == "nasa":
            with nasa(model.network, away, self.scale):
                x0 = self._x0(z, positive)
        elif self.method == "cfg":
            base = self._x0(z, away.expand(len(positive)))
            x0 = base + self.scale * (self._x0(z, positive) - base)
        elif self.method == "embeddings":
            x0 = self._x0(z, Text(states=positive.states - self.scale * away.states))
        else:
            raise ValueError(f"method {self.method!r} is not known; available: nasa, cfg, embeddings")
        return model.decode(x0)

    def _x0(self, z: torch.Tensor, context: Text) -> torch.Tensor:
        recipe = self.model.recipe
        if self.timestep is None and recipe is not None:
            timestep, alpha_T, sigma_T = recipe.timesteps[0], recipe.alpha_T, recipe.sigma_T
        else:
            timestep = LAST_TIMESTEP if self.timestep is None else self.timestep
            power = self.model.alphas_cumprod()[timestep].item()
            alpha_T, sigma_T = power**0.5, (1 - power) ** 0.5
        return one_step_x0(
            self.model,
            self.model.network,
            context,
            z,
            timestep=timestep,
            alpha_T=alpha_T,
            sigma_T=sigma_T,
        )


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
        raise ValueError(f"expected one seed a prompt, got {len(prompts)} prompts and {len(seeds)} seeds")
    return torch.cat(
        [make(prompts[n : n + BATCH], seeds[n : n + BATCH], negative) for n in range(0, len(prompts), BATCH)]
    )
