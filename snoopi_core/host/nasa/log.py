"""Log lines about a sampling run with NASA: probable mistakes before it, what NASA did after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from numbers import Real

import torch
from comfy.model_base import BaseModel
from comfy.samplers import CFGGuider

from ...guidance.methods import NASA, Method
from ..conditioning.negative import Negative
from ..families import family_of
from ..front_end import about_nodes, show_text
from ..loading.attachment import get_metadata
from .alpha import known_alpha
from .request import ALL_ZEROS, Steering
from .sampling_run import NODE_NAME_ATTRIBUTE, Run

FEW_STEPS = 8
"""Up to this many steps a model is probably distilled, so that cfg is a mistake."""
HIGH_NOISE = 0.75
"""Share of the highest noise level. A run that starts below it continues a picture (second passes, detailers) and has
few steps with any model."""
# There, half of the pictures of the shapes' student are broken (pytest tests/quality/test_inspect.py -rP).
TOO_HIGH_FACTOR = 3.0
"""Multiple of a model's own alpha from which a warning is logged."""
_DEFAULT_NAME = "NASA Apply"
_BLACK_MASK = "the mask is black in every picture of this run (of several masks, each picture uses its own)"


def describe_steering(steering: Steering, model: BaseModel) -> str:
    """Such as "alpha 0.3 in 15 of 16 attention layers of ..., from start_percent 0 to end_percent 0.5"."""
    family, window = family_of(model), steering.window
    layers = family.layers(model).values()
    count = sum(layer.block in steering.blocks for layer in layers)
    steps = f", from start_percent {window.start_percent:g} to end_percent {window.end_percent:g}"
    strength = describe_strength(steering.method, steering.alpha)
    return (
        f"{strength} in {count} of {len(layers)} attention layers of {family.name}{'' if window.covers_all else steps}"
    )


def describe_strength(method: Method, alpha: float, remark: str = "") -> str:
    """Such as "alpha 0.3, as set" for NASA, "NAG (tau 2.5, blend 0.375), alpha 4" for others."""
    return ", ".join(filter(None, ["" if method is NASA else str(method), f"alpha {alpha:g}", remark]))


class RunLog:
    """Logs each sampling run once at its start and once at its end."""

    def __init__(self, steerings: Sequence[Steering]) -> None:
        self.steerings = steerings

    def run_started(self, guider: CFGGuider, run: Run) -> None:
        node_name = _node_name(guider)
        for steering in self.steerings:
            if steering.text:  # again, because ComfyUI does not run an unchanged NASA Apply again
                show_text(steering.text, steering.node)
        if scales := _guidance_scales(guider):
            # Ordinary models need cfg, so a warning with each prompt would be wrong there.
            level = logging.WARNING if _is_distilled(guider, run) else logging.INFO
            logging.log(
                level,
                "%s: cfg is %s, so the sampler's own negative acts in addition to NASA's, which doubles the time. "
                "One-step and few-step models need cfg 1",
                node_name,
                scales,
            )
        if node_name == _DEFAULT_NAME and (high := self._too_high(guider)):
            strongest, known = high
            logging.warning(
                "NASA Apply: alpha is %g, but this model's own is %g: from about three times that, pictures break. "
                "Lower it, or compare strengths with NASA Scale Sweep",
                strongest.alpha,
                known,
                extra=about_nodes([strongest.node]),
            )
        if useless := [steering.node for steering in self.steerings if self._is_prompt(steering, guider)]:
            logging.warning(
                "%s: a negative is the same as the prompt. Name what should not appear, and nothing from the prompt",
                node_name,
                extra=about_nodes(useless if node_name == _DEFAULT_NAME else []),
            )

    def run_ended(self, guider: CFGGuider, run: Run) -> None:
        node_name = _node_name(guider)
        who = node_name if node_name == _DEFAULT_NAME else f"{node_name}: NASA"
        if not run.calls:
            logging.warning(
                "%s acted in no step of %d: the sampler never ran the model with the positive prompt that it "
                "was given. Guiders that make their own prompts cannot be steered; use one of ComfyUI's",
                who,
                run.steps,
            )
        elif not run.acted:
            logging.warning(
                "%s acted in no step of %d: all are outside start_percent to end_percent, or outside the negative's "
                "own timestep range. Use 0 and 1 for one-step models",
                who,
                run.steps,
            )
        elif not self._effective(run):
            reasons = [ALL_ZEROS] if run.unanswered else []
            reasons += [_BLACK_MASK] if any(map(run.had_black_mask, self.steerings)) else []
            logging.warning("%s does nothing: %s", who, "; ".join(reasons))
        else:
            what = "; ".join(describe_steering(steering, guider.inner_model) for steering in self.steerings)
            logging.info("%s acted in %d of %d call(s) of the model: %s", who, run.acted, run.calls, what)
            if run.unanswered:
                logging.warning(
                    "%s: %d of %d negative prompts have no effect: all zeros (ConditioningZeroOut). Where several are "
                    "combined, they weaken the others. Disconnect them",
                    who,
                    len(run.unanswered),
                    len(run.used),
                )

    def _effective(self, run: Run) -> set[Negative]:
        """The negatives that changed something in the run."""
        black = {negative for each in self.steerings if run.had_black_mask(each) for negative in each.negatives}
        return run.used - run.unanswered - black

    def _too_high(self, guider: CFGGuider) -> tuple[Steering, float] | None:
        """(the strongest, the model's own alpha) if the former is too high; None if it is not, or is not known."""
        patcher = getattr(guider, "model_patcher", None)
        known = patcher and known_alpha(patcher)
        of_nasa = [steering for steering in self.steerings if steering.method is NASA]
        strongest = max(of_nasa, key=lambda steering: steering.alpha, default=None)
        if not known or strongest is None:
            return None
        return (strongest, known[0]) if 0.0 < TOO_HIGH_FACTOR * known[0] <= strongest.alpha else None

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


def _node_name(guider: CFGGuider) -> str:
    return getattr(guider, NODE_NAME_ATTRIBUTE, _DEFAULT_NAME)


def _conditionings(guider: CFGGuider) -> dict:
    """The guider's conditionings by name; empty for guiders of other packs that store them elsewhere."""
    return getattr(guider, "original_conds", {})


def _guidance_scales(guider: CFGGuider) -> str:
    """The guidance scales as text (two for Dual CFG); "" if all are 1 or there is no negative prompt."""
    if not set(_conditionings(guider)) - {"positive"}:
        return ""
    names = ("cfg1", "cfg2") if hasattr(guider, "cfg1") else ("cfg",)
    scales = [scale for name in names for scale in _scale_values(getattr(guider, name, 1.0))]
    if all(math.isclose(scale, 1.0) for scale in scales):
        return ""
    if len(scales) > len(names):
        return f"{min(scales):g} to {max(scales):g}"
    return " and ".join(f"{scale:g}" for scale in scales)


def _scale_values(cfg: object) -> list[float]:
    """One scale, or the scales of a guider with one for each step; empty for other types."""
    if isinstance(cfg, torch.Tensor):
        cfg = cfg.flatten().tolist()
    several = cfg if isinstance(cfg, list | tuple) else [cfg]
    return [float(each) for each in several if isinstance(each, Real)]


def _is_distilled(guider: CFGGuider, run: Run) -> bool:
    """Whether the model was probably trained to be sampled without guidance."""
    patcher = getattr(guider, "model_patcher", None)
    metadata = patcher and get_metadata(patcher)
    if metadata is not None:
        return metadata.recipe is not None
    begin, highest = float(run.sigmas[0]), float(guider.inner_model.model_sampling.sigma_max)
    return run.steps <= FEW_STEPS and begin >= HIGH_NOISE * highest
