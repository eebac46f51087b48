"""The students that are compared, the numbers of images, and the folders of the runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments import study
from training.config import load_recipe
from training.models.loading.build import without_weights
from training.trainer.build import open_teacher
from training.trainer.estimate import estimate

STUDENTS = {1: (999,), 2: (999, 499), 4: (999, 749, 499, 249)}  # timesteps by number of steps
IN_MOST = "drawn in 4 steps"  # figures of a student of one step


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Numbers of images, and NASA's strength (that of the bundled student)."""

    captions: int = 400
    prompt_images: int = 50
    pair_images: int = 50
    alpha: float = 0.75


@dataclass(frozen=True, kw_only=True)
class Study(study.Study):
    """iterations: of the one-step student; equal: what all students have as many of, "updates" or "operations"."""

    recipe: str = "avatars"
    equal: str

    def folder(self, steps: int, seed: int) -> Path:
        return self.out / f"{steps}-step-seed{seed}"

    def varied(self, steps: int) -> tuple[str, ...]:
        """What a student changes in the recipe."""
        return (f"student.timesteps={list(STUDENTS[steps])}", *self.overrides)

    def operations(self, steps: int) -> float:
        """Floating-point operations of an iteration, by the trainer's estimate."""
        recipe = load_recipe(self.recipe, self.varied(steps))
        with without_weights():
            return estimate(recipe, *open_teacher(recipe), cuda=False).flops

    def length(self, operations: dict[int, float], steps: int) -> int:
        """Iterations of a student."""
        if self.equal == "updates":
            return self.iterations
        return round(self.iterations * operations[1] / operations[steps])
