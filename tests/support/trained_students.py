"""The runs of tests/nodes/test_trained_students.py: a tiny model of each class, and the shipped recipe for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny import tiny_backbone, tiny_pixart_backbone, tiny_sd21_backbone, tiny_sdxl_backbone

RANK, SCALING, TEACHERS_RANK = 4, 8.0, 2


@dataclass(frozen=True, kw_only=True)
class Kind:
    """side: of the latent; the host cannot place fewer than 33 of PixArt's. timestep, alpha: of the recipe for all
    weights, and of `lora_recipe` unless it has `lora_timesteps`, for which no alpha is known."""

    name: str
    make: object
    family: str
    side: int
    timestep: int
    alpha: float | None
    lora_recipe: str
    lora_timesteps: tuple[int, ...] = ()
    leaves_out_text: bool = False


KINDS = {
    "sd15": Kind(
        name="SD1.5",
        make=tiny_backbone,
        family="unet",
        side=8,
        timestep=999,
        alpha=0.04,
        lora_recipe="sd15_lora_4step",
        lora_timesteps=(999, 749, 499, 249),
    ),
    "sd21": Kind(
        name="SD2.1", make=tiny_sd21_backbone, family="unet", side=8, timestep=999, alpha=0.3, lora_recipe="sd21_12gb"
    ),
    "sdxl": Kind(
        name="SDXL",
        make=tiny_sdxl_backbone,
        family="unet",
        side=8,
        timestep=999,
        alpha=None,
        lora_recipe="sdxl_lora_4step",
        lora_timesteps=(999, 749, 499, 249),
        leaves_out_text=True,
    ),
    "pixart": Kind(
        name="PixArt-alpha 512",
        make=tiny_pixart_backbone,
        family="pixart",
        side=40,
        timestep=400,
        alpha=0.8,
        lora_recipe="pixart_12gb",
        leaves_out_text=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A finished run."""

    key: str
    lora: bool
    teacher: Path
    run: Path

    @property
    def kind(self) -> Kind:
        return KINDS[self.key]

    @property
    def timesteps(self) -> tuple[int, ...]:
        return (self.lora and self.kind.lora_timesteps) or (self.kind.timestep,)

    @property
    def alpha(self) -> float | None:
        return self.kind.alpha if len(self.timesteps) == 1 else None

    @property
    def cached(self) -> bool:
        """Whether the recipe wants embeddings on disk."""
        return self.lora and self.kind.leaves_out_text

    @property
    def exported(self) -> Path:
        return self.run / "export" / "student.safetensors"

    def command(self, run: Path, *more: str) -> list[str]:
        settings = {
            "teacher.path": self.teacher, "student.init": "", "prompts.source": self.teacher.parent / "prompts.txt",
            "student.learning_rate": 1e-2 if self.lora else 2e-3, "student.ema_decay": 0.5,
            "student.lora_rank": RANK, "student.lora_scaling": SCALING, "lora.rank": TEACHERS_RANK, "clip.weight": 0,
            "loop.iterations": 2, "loop.batch_size": 2, "loop.micro_batch": 1, "loop.latent_size": self.kind.side,
            "loop.threads": 1, "output.folder": run, "output.save_every": 1, "output.sample_every": 0,
            "output.trackers": "[]",
        }  # fmt: skip
        if self.cached:
            settings["prompts.text_cache"] = self.teacher.parent / "text"
        recipe = self.kind.lora_recipe if self.lora else self.key
        return ["--recipe", recipe, "--cpu", *(f"{key}={value}" for key, value in settings.items()), *more]

    def weights(self, network: str, step: int = 2) -> dict[str, torch.Tensor]:
        return load_file(self.run / "checkpoints" / f"step-{step:08d}" / f"{network}.safetensors")
