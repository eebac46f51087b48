"""Loads a judge by its name on the command line."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from training.evaluate.judges.verdict import Judge, Verdict
from training.evaluate.metrics.plugins import load_callable
from training.evaluate.sets.pairs import Pair

PEOPLE, ZERO_SHOT = "people", "clip"
BUILT_IN = {
    "shapes": "training.evaluate.judges.shapes:judge",
    "avatars": "training.evaluate.judges.avatars:judge",
}


def load_judge(name: str, clip_model: str, clip_weights: str, device: torch.device) -> Judge:
    """Load the judge `name`; the other arguments are for the judge "clip", see `OpenClip`.

    Raises:
        ValueError: the judge is not known or cannot be imported, or its weights do not fit.
        MissingWeights: its weights are not on this machine and cannot be downloaded.
    """
    if name == PEOPLE:
        raise ValueError("the judge people needs two runs; use `removal --judge people`")
    if name == ZERO_SHOT:
        # imported here: plug-ins do not need open_clip
        from training.evaluate.judges.zero_shot import ZeroShot
        from training.evaluate.metrics.open_clip_model import OpenClip

        return ZeroShot(OpenClip(clip_model, clip_weights, device, option="--clip-weights"))
    return _checked(load_callable(BUILT_IN.get(name, name), "judge", [PEOPLE, ZERO_SHOT, *BUILT_IN]), name)


def _checked(judge: Judge, name: str) -> Judge:
    """Wrap a plug-in so that a wrong return value raises a ValueError at once."""

    def judge_and_check(pictures: list[Image.Image], pair: Pair) -> Sequence[Verdict]:
        verdicts = list(judge(pictures, pair))
        wrong = next((v for v in verdicts if not isinstance(v, Verdict)), None)
        if wrong is not None or len(verdicts) != len(pictures):
            got = f"{len(verdicts)}" if wrong is None else f"{len(verdicts)} with a {type(wrong).__name__}"
            raise ValueError(f"judge {name}: expected {len(pictures)} training.evaluate.judges.Verdict, got {got}")
        return verdicts

    return judge_and_check
