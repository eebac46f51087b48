"""One sampling run of the host: which conditionings are positive, and values cached until the run ends.

The host numbers conditionings separately in each call (`cond_or_uncond`), and guidance nodes make their own calls:
Self-Attention Guidance runs the negative as number 0, Dual CFG the positive as number 2. Conditionings are therefore
identified by uuid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider

from ..conditioning.mask import Area
from ..conditioning.negative import Negative
from ..front_end import warnings_about
from .rows import label_call

RUN_KEY, POSITIVE_KEY, OBSERVER_KEY = "snoopi_run", "snoopi_positive", "snoopi_observer"
"""Keys in transformer_options: the run, the positive chunks of one call, and an observer of the layers."""
NODE_NAME_ATTRIBUTE = "snoopi_node_name"
"""Attribute of a guider: the node of this pack that samples by itself, to be named in log lines."""
Value = TypeVar("Value")


class Run:
    """State of one run. It is stored in the run's own model options, so it is freed with them."""

    def __init__(self, guider: CFGGuider, sigmas: torch.Tensor, shape: torch.Size) -> None:
        conditionings = getattr(guider, "original_conds", {}).get("positive") or ()
        self.positive = frozenset(conditioning["uuid"] for conditioning in conditionings)
        self.sigmas, self.steps = sigmas, len(sigmas) - 1
        self.shape = shape
        """Of the whole latent, (rows, C, h, w) or (rows, C, F, h, w)."""
        self.calls = self.acted = 0
        """Number of model calls with the positive prompt, and number of these in which NASA acted."""
        self.used: set[Negative] = set()
        self.unanswered: set[Negative] = set()
        """Negatives in these calls, and those among them that are all zeros and to which no layer responds."""
        self.said: set[str] = set()
        """What is logged only once."""
        self._masks: dict[tuple[Hashable, torch.device], torch.Tensor] = {}
        self._cache: dict[Hashable, Any] = {}

    def saw_mask(self, steering: Hashable, mask: torch.Tensor) -> None:
        """Remember whether a mask had any white part. The answer stays on its device until the run has ended."""
        key, white = (steering, mask.device), mask.any()
        self._masks[key] = self._masks[key] | white if key in self._masks else white

    def had_black_mask(self, steering: Hashable) -> bool:
        """Whether the mask of a steering was black in all calls in which it acted."""
        seen = [white for (each, _), white in self._masks.items() if each is steering]
        return bool(seen) and not any(bool(white) for white in seen)

    def cached(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The result of the first `make()` for this key. Threads of several GPUs must use different keys."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


@dataclass(frozen=True, kw_only=True)
class PositiveChunks:
    """Which chunks of a call belong to the positive prompt.

    numbers: of these chunks in `cond_or_uncond`.
    areas: by uuid, the area that the host crops out of the latent for a chunk.
    size: (h, w) or (F, h, w) of the latent before cropping.
    """

    numbers: frozenset[int] = frozenset({0})
    areas: Mapping[Hashable, Area] | None = None
    size: tuple[int, ...] | None = None


LogRun = Callable[[CFGGuider, Run], None]


def track_run(
    log_start: LogRun,
    log_end: LogRun,
    node: str,
    executor: WrapperExecutor,
    guider: CFGGuider,
    sigmas: torch.Tensor,
    extra_args: dict[str, Any],
    callback: Any,
    noise: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Wraps the host's `Sampler.sample`.

    Args:
        node: of the last NASA Apply before the sampler, which shows warnings of the run. Nodes of this pack that sample
            by themselves show their own.
    """
    run = Run(guider, sigmas, noise.shape)
    with warnings_about(() if hasattr(guider, NODE_NAME_ATTRIBUTE) else (node,)):
        _log_safely(log_start, guider, run)
        options = with_option(extra_args["model_options"], RUN_KEY, run)
        samples = executor(guider, sigmas, {**extra_args, "model_options": options}, callback, noise, *args, **kwargs)
        _log_safely(log_end, guider, run)
    return samples


def _log_safely(log: LogRun, guider: CFGGuider, run: Run) -> None:
    """Logging must never stop a run: guiders of other packs may have any attributes."""
    try:
        log(guider, run)
    except Exception:
        logging.warning("NASA Apply: this sampling run cannot be described in the log; it continues", exc_info=True)


def mark_positive(
    executor: WrapperExecutor,
    model: BaseModel,
    conditionings: list[list[dict[str, Any]] | None],
    x: torch.Tensor,
    sigma: torch.Tensor,
    model_options: dict[str, Any],
) -> list[torch.Tensor]:
    """Wraps the host's `calc_cond_batch`."""
    wrapper = partial(label_call, model_options.get("model_function_wrapper"))
    model_options = {**model_options, "model_function_wrapper": wrapper}
    run: Run | None = model_options.get("transformer_options", {}).get(RUN_KEY)
    if run is None or not run.positive:
        return executor(model, conditionings, x, sigma, model_options)
    # For areas, the host appends copies from other lists; the first conditioning is always the list's own.
    numbers = [i for i, several in enumerate(conditionings) if several and several[0].get("uuid") in run.positive]
    size = tuple(x.shape[2:])
    areas = {
        one["uuid"]: _area(one["area"], size)
        for i in numbers
        for one in conditionings[i]
        if one.get("area") is not None
    }
    positive = PositiveChunks(numbers=frozenset(numbers), areas=areas, size=size)
    return executor(model, conditionings, x, sigma, with_option(model_options, POSITIVE_KEY, positive))


def with_option(model_options: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """A copy of the options with `value` under `key` in transformer_options."""
    options = model_options.get("transformer_options", {})
    return {**model_options, "transformer_options": {**options, key: value}}


def _area(area: tuple[int, ...], size: tuple[int, ...]) -> Area:
    """The host's (sizes..., offsets...) for a latent of this size, padded and clipped as the host does."""
    sizes, offsets = area[: len(area) // 2], area[len(area) // 2 :]
    missing = max(len(size) - len(sizes), 0)
    sizes, offsets = (*size[:missing], *sizes)[: len(size)], (*(0,) * missing, *offsets)[: len(size)]
    return tuple(map(min, (w - o for w, o in zip(size, offsets, strict=True)), sizes)), offsets
