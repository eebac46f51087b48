"""A student of a small world as a person uses it: loader, text encoder, NASA Apply, One-Step Sampler, VAE Decode."""

from __future__ import annotations

import importlib
from itertools import groupby

import nodes as host_nodes
import torch

STUDENT = "snoopi-shapes-student.safetensors"
TEACHER = "snoopi-shapes-teacher.safetensors"


def pack_node(module: str, name: str) -> type:
    return getattr(importlib.import_module(f"snoopi_pack.nodes.{module}"), name)


class HostStudent:
    """Calls the nodes themselves, in this process. Is a `experiments.removal.Generate`."""

    def __init__(self, ckpt_name: str = STUDENT, *, alpha: float = 0.0) -> None:
        self.model, self.clip, self.vae = pack_node("pgsb_loader", "PGSBLoader").execute(ckpt_name).result
        self.alpha = alpha

    # The host runs its nodes without gradients; with them, every image would keep its whole network in memory.
    @torch.no_grad()
    def encode(self, text: str) -> list:
        return host_nodes.CLIPTextEncode().encode(self.clip, text)[0]

    @torch.no_grad()
    def latents(
        self, positive: list, *, seed: int, count: int, negative: list | None = None, timesteps: str = "auto"
    ) -> torch.Tensor:
        """x0, (count, C, 8, 8), in the VAE's scale, as the sampler node returns it."""
        model = self.model
        channels = model.model.latent_format.latent_channels
        if negative is not None:
            model = pack_node("nasa_apply", "NASAApply").execute(model, negative, self.alpha).result[0]
        empty = {"samples": torch.zeros(count, channels, 8, 8)}
        sampler = pack_node("one_step_sampler", "OneStepSampler")
        return sampler.execute(model, positive, empty, seed, timesteps).result[0]["samples"]

    @torch.no_grad()
    def __call__(self, prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        """Images (B, 3, 64, 64) in [0, 1]; a run of equal prompts is one batch on its first seed, as in a graph."""
        away = None if negative is None else self.encode(negative)
        images, start = [], 0
        for prompt, run in groupby(prompts):
            count = len(list(run))
            samples = self.latents(self.encode(prompt), seed=seeds[start], count=count, negative=away)
            images.append(self.vae.decode(samples).movedim(-1, 1))
            start += count
        return torch.cat(images).float().clamp(0, 1)
