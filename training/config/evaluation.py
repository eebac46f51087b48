"""Settings of the evaluation on a schedule while training, and what it takes where they are left out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.config.settings import Section
from training.config.values import Several

Metric = Literal["clip", "fid", "prc", "removal"]


class Evaluate(Section):
    """The averaged student, measured while it is trained as `python -m training.evaluate` measures a finished one."""

    every: int = Field(
        default=0, ge=0, description="iterations from one evaluation to the next; also at the end. 0 = never"
    )
    metrics: Several[Metric] = Field(
        default=(),
        description="CLIP score (clip), FID, precision and recall (prc), removal by NASA; empty = removal in a small "
        "world, CLIP score and removal otherwise",
    )
    images: int = Field(
        default=256, ge=1, description="for CLIP score, FID, precision and recall: one for each of so many prompts"
    )
    prompts: str = Field(
        default="",
        description="of these images: as prompts.source, with prompts.column (but for a .txt file) and prompts.split; "
        "empty = the run's own",
    )
    clip_model: str = Field(default="ViT-g-14", description="open_clip's name, or local-dir:FOLDER (paper: ViT-g-14)")
    clip_weights: str = Field(default="laion2b_s12b_b42k", description="open_clip's tag, or a local file")
    clip_prefix: str = Field(default="A photo depicts ", description="before each prompt (paper's)")
    reference: str = Field(default="", description="of FID, precision and recall: a folder of images, or an .npz")
    side: int | None = Field(
        default=None, ge=1, description="for FID: centre-crop all images and resize them to so many pixels (paper: 256)"
    )
    inception_weights: str = Field(default="", description="local file; empty = where torch keeps it")
    judge: str = Field(
        default="",
        description='of removal: "clip", "shapes", "avatars", or package.module:function; empty = the small world\'s, '
        "or clip",
    )
    judge_model: str = Field(default="ViT-H-14", description="of judge clip: open_clip's name, or local-dir:FOLDER")
    judge_weights: str = Field(default="laion2b_s32b_b79k", description="of judge clip: open_clip's tag, or a file")
    pairs: str = Field(
        default="", description='of removal: "paper", "shapes", "avatars", or a .json file; empty = as the judge'
    )
    count: int = Field(default=8, ge=1, description="images of each pair, without the negative and with it")
    alpha: float | None = Field(default=None, gt=0, description="strength of NASA; unset = output.recommended_alpha")
    batch: int = Field(default=8, ge=1, description="images that a process makes, and a judge sees, at a time")

    def filled_in(self, world: str, recommended_alpha: float | None) -> Evaluate:
        """With what is left out. `world`: the small world of the run's prompts, if they are of one."""
        found = {
            "metrics": self.metrics or (("removal",) if world else ("clip", "removal")),
            "judge": self.judge or world or "clip",
            "pairs": self.pairs or world or "paper",
            "alpha": self.alpha or recommended_alpha or None,  # 0 recommends no negative prompt
        }
        return self.model_copy(update=found)
