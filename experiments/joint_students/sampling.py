"""Pictures from a student in the host: its sampler, its ModelPatcher, and NASA Apply's attachment.

Import after `host.start_host()`. Dimensions: B pictures; TOKENS text tokens, E their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

from experiments.joint_students.formulas import FORMULAS, steered
from experiments.joint_students.settings import Setting
from experiments.joint_students.train import SIGMAS
from experiments.joint_students.turn import turned
from experiments.joint_students.world import text_states
from experiments.sampling import one_step
from training.models.backbone import Backbone

_BATCH = 10


@dataclass(frozen=True, kw_only=True)
class HostStudent:
    """Makes pictures, `experiments.removal.Generate`, with a setting; without one the negative is not used.

    world: the model whose text encoder and decoder are used.
    rotation: of the first noise, as in training.
    steps: 1, or 4 with fresh noise between them.
    """

    patcher: ModelPatcher
    world: Backbone
    rotation: torch.Tensor
    setting: Setting | None = None
    steps: int = 1

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        """Images (B, 3, 64, 64) in [0, 1]. Each has the noise of its seed; later noise is by batch."""
        images, start = [], 0
        for prompt, run in groupby(prompts):
            end = start + len(list(run))
            patcher, others, cfg = self._steered(prompt, negative)
            for n in range(start, end, _BATCH):
                latents = self._latents(patcher, self.encode(prompt), others, cfg, seeds[n : min(n + _BATCH, end)])
                images.append(self.world.decode(latents))
            start = end
        return torch.cat(images)

    def encode(self, prompt: str, *, trim: bool = False) -> list[list[Any]]:
        """The host's CONDITIONING: TOKENS states, or only those of the prompt's own tokens."""
        states = text_states(self.world, [prompt])
        return [[states[:, : self.world.count_tokens([prompt])[0]] if trim else states, {}]]

    def _steered(self, prompt: str, negative: str | None) -> tuple[ModelPatcher, list[list[Any]], float]:
        """The model, the prompt of the unconditional rows, and cfg."""
        setting = self.setting
        if setting is None or negative is None:
            return self.patcher, self.encode(""), 1.0
        away = self.encode(negative, trim=setting.trim)
        if setting.method not in FORMULAS:
            return self.patcher, away, setting.strength
        model = steered(self.patcher, self.encode(prompt), away, setting.method, setting.strength, **setting.others)
        return model, self.encode(""), 1.0

    def _latents(
        self, patcher: ModelPatcher, positive: list, negative: list, cfg: float, seeds: list[int]
    ) -> torch.Tensor:
        noise = turned(one_step(self.world, "none").noise(seeds), self.rotation)
        first = SIGMAS if self.steps > 1 else SIGMAS[:1]
        sampler, sigmas = comfy.samplers.sampler_object("lcm"), torch.tensor([*first, 0.0])
        return comfy.sample.sample_custom(
            patcher,
            noise,
            cfg,
            sampler,
            sigmas,
            positive,
            negative,
            torch.zeros_like(noise),
            seed=seeds[0],
            disable_pbar=True,
        )
