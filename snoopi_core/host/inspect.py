"""Evaluate a steered model once and measure how strongly each negative acts in each cross-attention."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..guidance.blocks import describe_blocks
from ..guidance.methods import NASA
from ..guidance.strength import LayerStrength, Response, strength_table
from ..guidance.verdict import NO_EFFECT, explain, verdict
from ..pictures.strength_chart import strength_chart
from ..presets import AUTO, find_preset
from .families import LayerKey, LayerObserver, family_of
from .nasa.alpha import known_alpha
from .nasa.apply import WRAPPER_KEY
from .nasa.request import Steering
from .nasa.sampling_run import OBSERVER_KEY, with_option
from .one_step import Latent, OneStepSampler, SamplingPlan, plan_one_step, recipe_of, sample_plan
from .torch_compile import uncompiled

_NODE_NAME = "NASA Inspect"
_NOT_STEERED = (
    "Nothing is steered: this model does not come from NASA Apply, or that node does nothing (alpha 0, a negative of "
    "zeros, a black mask, an empty window). Connect the MODEL output of NASA Apply."
)


def inspect(
    patcher: ModelPatcher, positive: list, latent: Latent, *, seed: int, preset: str = AUTO
) -> tuple[torch.Tensor, str]:
    """Measure NASA in the first step: a chart, (1, H, W, 3), and a report as text.

    Raises:
        ValueError: the preset is for other models.
    """
    wrappers = patcher.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    steerings = tuple(each for wrapper in wrappers for each in wrapper.steerings)
    if not steerings:
        return strength_chart([NO_EFFECT, _NOT_STEERED], []), f"{NO_EFFECT}\n{_NOT_STEERED}"
    family = family_of(patcher.model)
    names = {key: f"{layer.block.group}.{layer.block.index}" for key, layer in family.layers(patcher.model).items()}
    plan, observer = first_step(patcher, preset), StrengthObserver(names)
    with uncompiled:  # a compiled graph would not call the observer
        observed_step(plan, positive, latent, seed=seed, observer=observer)
    sigma, sampling = float(plan.sigmas[0]), plan.patcher.get_model_object("model_sampling")
    active = [each for each in steerings if each.active_negatives(lambda window: window.is_active(sigma, sampling))]
    sentences = [NO_EFFECT, _where(patcher, sigma, steerings, active, observer.layers)]
    if observer.layers:
        strengths = [(each.method, each.alpha) for each in active]
        sentences[0] = verdict(observer.layers, strengths, known_alpha(patcher, preset))
        sentences += explain(observer.layers, strengths)
    report = "\n".join([*sentences, *(["", strength_table(observer.layers)] if observer.layers else [])])
    return strength_chart(sentences, observer.layers), report


class StrengthObserver:
    """A `LayerObserver` that measures.

    Args:
        names: of all layers, in the order in which they run.
    """

    def __init__(self, names: dict[LayerKey, str]) -> None:
        self._names = names
        self._layers: dict[LayerKey, LayerStrength] = {}
        self._lock = threading.Lock()  # the host runs several GPUs in threads

    @property
    def layers(self) -> list[LayerStrength]:
        """The steered layers, in the order in which they run."""
        return [self._layers[key] for key in self._names if key in self._layers]

    def on_response(self, key: LayerKey, number: int, z_pos: torch.Tensor, z_neg: torch.Tensor) -> None:
        with self._lock:
            self._layer(key).negatives.setdefault(number, Response()).add(z_pos, z_neg)

    def on_steered(self, key: LayerKey, z_pos: torch.Tensor, z_nasa: torch.Tensor) -> None:
        with self._lock:
            self._layer(key).difference.add(z_pos, z_nasa - z_pos)

    def _layer(self, key: LayerKey) -> LayerStrength:
        return self._layers.setdefault(key, LayerStrength(self._names[key]))


def first_step(patcher: ModelPatcher, preset: str = AUTO) -> SamplingPlan:
    """The first step of the preset or of the checkpoint's recipe; for all other models, the step from pure noise.

    The step from pure noise works for every model, including those that One-Step Sampler does not support.
    """
    chosen = find_preset(preset) or recipe_of(patcher)
    if chosen is not None:
        return plan_one_step(patcher, timesteps=str(chosen.timesteps[0]), preset=preset, node_name=_NODE_NAME)
    sigma = patcher.get_model_object("model_sampling").sigma_max
    return SamplingPlan(
        patcher=patcher, sigmas=torch.tensor([float(sigma), 0.0]), sampler=OneStepSampler, node_name=_NODE_NAME
    )


def observed_step(plan: SamplingPlan, positive: list, latent: Latent, *, seed: int, observer: LayerObserver) -> Latent:
    """Run the step from pure noise; the observer does not change the result."""
    latent = {key: value for key, value in latent.items() if key != "noise_mask"}
    patcher = plan.patcher.clone()
    patcher.model_options = with_option(patcher.model_options, OBSERVER_KEY, observer)
    observed = dataclasses.replace(plan, patcher=patcher)
    # Without a preview: the front end would keep showing it instead of the node's chart.
    return sample_plan(observed, positive, latent, seed=seed, callback=lambda *step: None)


def _where(
    patcher: ModelPatcher,
    sigma: float,
    steerings: Sequence[Steering],
    active: Sequence[Steering],
    seen: Sequence[LayerStrength],
) -> str:
    """Describe where NASA acted, or why it did not."""
    family = family_of(patcher.model)
    if not active:
        windows = ", ".join(f"{each.window.start_percent:g} to {each.window.end_percent:g}" for each in steerings)
        return (
            f"NASA Apply does not act in this step (noise level {sigma:.3g}): the step is outside the window from "
            f"start_percent to end_percent ({windows}) or outside the negative's timestep range. Use 0 and 1 for "
            "one-step models."
        )
    layers = family.layers(patcher.model).values()
    chosen = frozenset[Any]().union(*(each.blocks for each in active))
    wanted = sum(layer.block in chosen for layer in layers)
    if len(seen) < wanted:
        return (
            f"NASA Apply acts in {len(seen)} of the {wanted} chosen cross-attentions: another patch skips or replaces "
            "the others. Remove nodes that skip blocks or cache steps."
        )
    strengths = " and ".join(
        f"alpha {each.alpha:g}" + ("" if each.method is NASA else f", method {each.method}") for each in active
    )
    blocks = describe_blocks(block for block in family.blocks(patcher.model) if block in chosen)
    where = "" if wanted == len(layers) else f" ({blocks})"
    idle = len(steerings) - len(active)
    rest = f" {idle} of {len(steerings)} NASA Apply nodes do not act in this step." if idle else ""
    acts = f"NASA Apply acts in {wanted} of {len(layers)} cross-attentions of {family.name}{where}, with {strengths}."
    others = any(each.method is not NASA for each in active)
    return acts + rest + (" The limits below were measured with NASA." if others else "")
