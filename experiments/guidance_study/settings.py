"""The cells of the study, its numbers of images, and the folders and settings of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import study


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A setting that is compared: its title, and what it changes in the recipe."""

    title: str
    overrides: tuple[str, ...]


_TEACHER, _LORA = "guidance.teacher_kappa", "guidance.lora_kappa"
_SWIFTBRUSH = (f"{_TEACHER}=4.5", f"{_LORA}=4.5")
_FIXED = (f"{_TEACHER}=2.25", f"{_LORA}=2.25")
_FAST = ("student.learning_rate=1.2e-3",)  # three times the recipe's
CELLS = {
    "pgsb": Cell(title="PG-SB: both random (Table 2: both)", overrides=()),
    "swiftbrush": Cell(title="SwiftBrush: both 4.5", overrides=_SWIFTBRUSH),
    "fixed": Cell(title="same mean: both 2.25 (Table 2: neither)", overrides=_FIXED),
    "teacher-only": Cell(title="only the teacher random", overrides=(f"{_LORA}=2.25",)),
    "lora-only": Cell(title="only the LoRA teacher random", overrides=(f"{_TEACHER}=2.25",)),
    "dmd2trick": Cell(  # all on the student's images, as it was measured
        title="SwiftBrush + 5 LoRA updates", overrides=(*_SWIFTBRUSH, "lora.updates=5", "lora.batches=shared")
    ),
    "pgsb-high": Cell(
        title="PG-SB, kappa ~ U(3, 6): SwiftBrush's mean", overrides=("guidance.kappa_min=3", "guidance.kappa_max=6")
    ),
    "pgsb-fast": Cell(title="PG-SB, learning rate x 3", overrides=_FAST),
    "swiftbrush-fast": Cell(title="SwiftBrush, learning rate x 3", overrides=(*_SWIFTBRUSH, *_FAST)),
    # What the recipe `avatars` has added to the paper's, taken back one at a time.
    "updates-1": Cell(title="1 LoRA update (the paper)", overrides=("lora.updates=1",)),
    "updates-2": Cell(title="2 LoRA updates", overrides=("lora.updates=2",)),
    "shared": Cell(title="4 LoRA updates on the same pictures", overrides=("lora.batches=shared",)),
    "eps-loss": Cell(title="lora.loss = eps (the paper)", overrides=("lora.loss=eps",)),
    "sigma-squared": Cell(title="weighted by sigma squared (the paper)", overrides=("loop.vsd_weight=sigma_squared",)),
    "rank-16": Cell(title="LoRA teacher of rank 16", overrides=("lora.rank=16", "lora.scaling=16")),
}
OF_RECIPE = ("updates-1", "updates-2", "shared", "eps-loss", "sigma-squared", "rank-16")
OF_GUIDANCE = tuple(cell for cell in CELLS if cell not in OF_RECIPE)
# The cells in each column of the chart: the paper's Figure 2, its Table 2, and two tests of stability.
GROUPS = {
    "Figure 2, and the same mean": ("pgsb", "swiftbrush", "dmd2trick", "fixed"),
    "Table 2: which is random": ("pgsb", "teacher-only", "lora-only", "fixed"),
    "a higher range": ("pgsb-high", "swiftbrush"),
    "learning rate x 3": ("pgsb-fast", "swiftbrush-fast"),
    "LoRA updates": ("pgsb", "updates-2", "updates-1", "shared"),
    "loss, weighting, rank": ("pgsb", "eps-loss", "sigma-squared", "rank-16"),
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Numbers of images: at every measurement (curve_*), and for the last checkpoint."""

    curve_captions: int = 200
    curve_prompt_images: int = 20
    captions: int = 400
    prompt_images: int = 50
    pairs: int = 2
    pair_images: int = 50
    alpha: float = 1.0  # of NASA, as recommended in the shapes recipe; the avatars' student: 0.75


@dataclass(frozen=True, kw_only=True)
class Study(study.Study):
    """The runs of one call, and their folder."""

    world: str = "shapes"
    cells: Sequence[str]
    seeds: Sequence[int]

    own = ("output.keep_last=100000", "output.keep_best=false", "output.log_every=1")

    def folder(self, cell: str, seed: int) -> Path:
        return self.out / f"{cell}-seed{seed}"

    def varied(self, cell: str) -> tuple[str, ...]:
        """What a cell changes in the recipe."""
        return (*CELLS[cell].overrides, *self.overrides)
