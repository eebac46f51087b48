"""What is said of a sampling run with NASA: before it, what is likely a mistake; after it, what was done."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from numbers import Real

import torch
from comfy.model_base import BaseModel
from comfy.samplers import CFGGuider

from ...guidance.blocks import Block, describe_blocks
from ..families import family_of
from ..loading.attachment import get_metadata
from .alpha import known_alpha
from .request import Steering
from .sampling_run import SPEAKER, Run

FEW = 8
"""Steps that few-step models take, and for which cfg would be a mistake."""
NOISY = 0.75
"""Of the highest noise level: a run that begins below it goes on with a picture (second passes, detailers), and has few
steps whatever the model."""
# On the bundled student half of the pictures are no valid ones there (pytest tests/quality/test_inspect.py -rP).
TOO_HIGH = 3.0
"""Times the alpha that was measured for a model."""
_USUAL = "NASA Apply"


def described(steering: Steering, model: BaseModel) -> str:
    """Such as "alpha 0.3 in 15 of 16 attention layers of ..., from start_percent 0 to end_percent 0.5"."""
    family, window = family_of(model), steering.window
    layers = family.layers(model).values()
    count = sum(layer.block in steering.blocks for layer in layers)
    steps = f", from start_percent {window.start_percent:g} to end_percent {window.end_percent:g}"
    return (
        f"alpha {steering.alpha:g} in {count} of {len(layers)} attention layers of {family.name}"
        f"{'' if window.is_everything else steps}"
    )


class RunLog:
    """Is told of each run once, at its beginning and at its end."""

    def __init__(self, steerings: Sequence[Steering]) -> None:
        self.steerings = steerings

    def begins(self, guider: CFGGuider, run: Run) -> None:
        speaker = _speaker(guider)
        if scales := _scales(guider):
            # Ordinary models are meant to be guided: there it is no warning, which would come with each prompt.
            level = logging.WARNING if _is_distilled(guider, run) else logging.INFO
            logging.log(
                level,
                "%s: cfg is %s, so the sampler's own negative acts as well, beside NASA's and at twice the time. "
                "One-step and few-step models need cfg 1",
                speaker,
                scales,
            )
        if speaker == _USUAL and (high := self._too_high(guider)):
            alpha, known = high
            logging.warning(
                "NASA Apply: alpha is %g, but this model's own is %g: from about three times that on pictures break. "
                "Lower it, or look at NASA Scale Sweep",
                alpha,
                known,
            )
        if any(self._is_prompt(steering, guider) for steering in self.steerings):
            logging.warning(
                "%s: a negative is the prompt itself, so it only weakens the prompt. Name what should not appear, and "
                "nothing of the prompt",
                speaker,
            )
        if dropped := self._dropped(guider.inner_model):
            logging.warning(
                "%s: another node has replaced the cross-attention of %s, and NASA takes its place: that node does "
                "nothing there. Leave these out of NASA Apply's blocks, or take that node out",
                speaker,
                describe_blocks(dropped),
            )

    def ends(self, guider: CFGGuider, run: Run) -> None:
        speaker = _speaker(guider)
        who = speaker if speaker == _USUAL else f"{speaker}: NASA"
        if not run.calls:
            logging.warning(
                "%s acted in no step of %d: the sampler never ran the model for the positive prompt that it "
                "was given. A guider that makes prompts of its own cannot be steered; use one of ComfyUI's",
                who,
                run.steps,
            )
        elif not run.acted:
            logging.warning(
                "%s acted in no step of %d: all lie outside of start_percent to end_percent, or of the negative's own "
                "timestep range. Leave 0 and 1 for one-step models",
                who,
                run.steps,
            )
        else:
            what = "; ".join(described(steering, guider.inner_model) for steering in self.steerings)
            logging.info("%s acted %d of the %d time(s) that the model ran: %s", who, run.acted, run.calls, what)

    def _dropped(self, model: BaseModel) -> list[Block]:
        family = family_of(model)
        chosen = frozenset[Block]().union(*(steering.blocks for steering in self.steerings))
        return [block for block in family.dropped(model) if block in chosen]

    def _too_high(self, guider: CFGGuider) -> tuple[float, float] | None:
        """(alpha, the model's own) of the strongest, where it is too strong for a model of which that is known."""
        patcher = getattr(guider, "model_patcher", None)
        known = patcher and known_alpha(patcher)
        alpha = max(steering.alpha for steering in self.steerings)
        return (alpha, known[0]) if known and 0.0 < TOO_HIGH * known[0] <= alpha else None

    @staticmethod
    def _is_prompt(steering: Steering, guider: CFGGuider) -> bool:
        prompts = [conditioning.get("cross_attn") for conditioning in _conditionings(guider).get("positive") or ()]
        return any(
            isinstance(prompt, torch.Tensor)
            and prompt.shape == negative.embedding.shape
            and torch.equal(prompt, negative.embedding.to(prompt))
            for prompt in prompts
            for negative in steering.negatives
        )


def _speaker(guider: CFGGuider) -> str:
    return getattr(guider, SPEAKER, _USUAL)


def _conditionings(guider: CFGGuider) -> dict:
    """Other packs' guiders may keep theirs elsewhere."""
    return getattr(guider, "original_conds", {})


def _scales(guider: CFGGuider) -> str:
    """The guidance scales that are not 1, where there is a prompt for them: one, or Dual CFG's two."""
    if not set(_conditionings(guider)) - {"positive"}:
        return ""
    names = ("cfg1", "cfg2") if hasattr(guider, "cfg1") else ("cfg",)
    scales = [scale for name in names for scale in _numbers(getattr(guider, name, 1.0))]
    if all(math.isclose(scale, 1.0) for scale in scales):
        return ""
    if len(scales) > len(names):
        return f"{min(scales):g} to {max(scales):g}"
    return " and ".join(f"{scale:g}" for scale in scales)


def _numbers(cfg: object) -> list[float]:
    """A scale, or the scales of a guider that has one for each step; none where it is something else again."""
    if isinstance(cfg, torch.Tensor):
        cfg = cfg.flatten().tolist()
    several = cfg if isinstance(cfg, list | tuple) else [cfg]
    return [float(each) for each in several if isinstance(each, Real)]


def _is_distilled(guider: CFGGuider, run: Run) -> bool:
    """Whether the model was trained to be sampled without guidance, as far as one can tell."""
    patcher = getattr(guider, "model_patcher", None)
    metadata = patcher and get_metadata(patcher)
    if metadata is not None:
        return metadata.recipe is not None
    begin, highest = float(run.sigmas[0]), float(guider.inner_model.model_sampling.sigma_max)
    return run.steps <= FEW and begin >= NOISY * highest
