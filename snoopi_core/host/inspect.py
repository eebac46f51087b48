"""One evaluation of a steered model while looking on: how strongly each negative acts in each cross-attention."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..guidance.blocks import describe_blocks
from ..guidance.strength import LayerStrength, Response, strength_table, verdict
from ..pictures.strength_chart import strength_chart
from ..presets import AUTO, find_preset
from .families import Key, Watch, family_of
from .nasa.apply import WRAPPER_KEY
from .nasa.request import Steering
from .nasa.sampling_run import WATCH, with_option
from .one_step import Latent, OneStepSampler, Way, one_step_way, recipe_of, sample_alone
from .torch_compile import uncompiled

_SPEAKER = "NASA Inspect"
_NOT_STEERED = (
    "Nothing is steered: this model does not come out of NASA Apply, or that node does nothing (alpha 0, a black mask, "
    "an empty window). Connect the MODEL output of NASA Apply."
)


def inspect(
    patcher: ModelPatcher, positive: list, latent: Latent, *, seed: int, preset: str = AUTO
) -> tuple[torch.Tensor, str]:
    """A chart, (1, H, W, 3), and a report of what NASA does in the first step.

    Raises:
        ValueError: a preset that is for other models.
    """
    wrappers = patcher.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    steerings = tuple(each for wrapper in wrappers for each in wrapper.steerings)
    if not steerings:
        return strength_chart([_NOT_STEERED], []), _NOT_STEERED
    family = family_of(patcher.model)
    names = {key: f"{layer.block.group}.{layer.block.index}" for key, layer in family.layers(patcher.model).items()}
    way, watch = first_step(patcher, preset), Strengths(names)
    with uncompiled():  # a graph would neither know of the watch nor tell it anything
        watched_step(way, positive, latent, seed=seed, watch=watch)
    sentences = [_where(patcher, way, steerings, watch.layers), *(verdict(watch.layers) if watch.layers else [])]
    report = "\n".join([*sentences, *(["", strength_table(watch.layers)] if watch.layers else [])])
    return strength_chart(sentences, watch.layers), report


class Strengths:
    """A `families.Watch` that measures.

    Args:
        names: of all layers, in the order in which they run.
    """

    def __init__(self, names: dict[Key, str]) -> None:
        self._names = names
        self._layers: dict[Key, LayerStrength] = {}
        self._lock = threading.Lock()  # the host runs several GPUs in threads

    @property
    def layers(self) -> list[LayerStrength]:
        """Those that were steered, in the order in which they run."""
        return [self._layers[key] for key in self._names if key in self._layers]

    def responded(self, key: Key, number: int, z_pos: torch.Tensor, z_neg: torch.Tensor) -> None:
        with self._lock:
            self._layer(key).negatives.setdefault(number, Response()).add(z_pos, z_neg)

    def steered(self, key: Key, z_pos: torch.Tensor, z_nasa: torch.Tensor) -> None:
        with self._lock:
            self._layer(key).difference.add(z_pos, z_nasa - z_pos)

    def _layer(self, key: Key) -> LayerStrength:
        return self._layers.setdefault(key, LayerStrength(self._names[key]))


class Watched(comfy.samplers.Sampler):
    """A sampler of the host's with something that looks on."""

    def __init__(self, sampler: comfy.samplers.Sampler, watch: Watch) -> None:
        self.sampler, self.watch = sampler, watch

    def max_denoise(self, model_wrap: Any, sigmas: torch.Tensor) -> bool:
        return self.sampler.max_denoise(model_wrap, sigmas)

    def sample(
        self, model_wrap: Any, sigmas: torch.Tensor, extra_args: dict[str, Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        options = with_option(extra_args["model_options"], WATCH, self.watch)
        return self.sampler.sample(model_wrap, sigmas, {**extra_args, "model_options": options}, *args, **kwargs)


def first_step(patcher: ModelPatcher, preset: str = AUTO) -> Way:
    """The first step that a preset takes, or the checkpoint's recipe; for all other models the one from pure noise.

    The last works for every kind of model, also those that One-Step Sampler does not know.
    """
    chosen = find_preset(preset) or recipe_of(patcher)
    if chosen is not None:
        return one_step_way(patcher, timesteps=str(chosen.timesteps[0]), preset=preset, speaker=_SPEAKER)
    sigma = patcher.get_model_object("model_sampling").sigma_max
    return Way(patcher=patcher, sigmas=torch.tensor([float(sigma), 0.0]), sampler=OneStepSampler, speaker=_SPEAKER)


def watched_step(way: Way, positive: list, latent: Latent, *, seed: int, watch: Watch) -> Latent:
    """What the step gives from noise alone, which is the same as without the watch."""
    latent = {key: value for key, value in latent.items() if key != "noise_mask"}
    watched = dataclasses.replace(way, sampler=lambda noise_of: Watched(way.sampler(noise_of), watch))
    # Without a preview: the front end would go on showing it in place of the node's chart.
    return sample_alone(watched, positive, latent, seed=seed, callback=lambda *step: None)


def _where(patcher: ModelPatcher, way: Way, steerings: Sequence[Steering], seen: Sequence[LayerStrength]) -> str:
    """Where NASA acted, or why it did not."""
    family, sigma = family_of(patcher.model), float(way.sigmas[0])
    sampling = way.patcher.get_model_object("model_sampling")
    active = [each for each in steerings if each.active(lambda window: window.is_active(sigma, sampling))]
    if not active:
        windows = ", ".join(f"{each.window.start_percent:g} to {each.window.end_percent:g}" for each in steerings)
        return (
            f"NASA Apply does not act in this step (noise level {sigma:.3g}): it is outside of the window from "
            f"start_percent to end_percent ({windows}) or of the negative's timestep range. Leave 0 and 1 for one-step "
            "models."
        )
    layers = family.layers(patcher.model).values()
    chosen = frozenset[Any]().union(*(each.blocks for each in active))
    wanted = sum(layer.block in chosen for layer in layers)
    if len(seen) < wanted:
        return (
            f"NASA acts in {len(seen)} of the {wanted} cross-attentions that it was given: another patch skips or "
            "replaces the others. Take nodes that skip blocks or cache steps out of the chain."
        )
    alphas = ", ".join(f"{each.alpha:g}" for each in active)
    blocks = describe_blocks(block for block in family.blocks(patcher.model) if block in chosen)
    where = "" if wanted == len(layers) else f" ({blocks})"
    idle = len(steerings) - len(active)
    rest = f" {idle} of {len(steerings)} NASA Apply nodes do not act in this step." if idle else ""
    acts = f"NASA acts in {wanted} of {len(layers)} cross-attentions of {family.name}{where}, with alpha {alphas}."
    return acts + rest
