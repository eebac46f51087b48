"""One sampling run of the host: which conditionings are the positive ones, and what may be kept until its end.

The host numbers conditionings in each of its calls anew (`cond_or_uncond`), and guidance nodes make calls of their own:
Self-Attention Guidance runs the negative as number 0, Dual CFG the positive as number 2. Their uuids tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider

from ..conditioning.mask import Area

RUN, POSITIVE, WATCH = "snoopi_run", "snoopi_positive", "snoopi_watch"
"""Keys in transformer_options: of a run, of one of its calls, and of what looks on."""
SPEAKER = "snoopi_speaker"
"""Attribute of a guider: the node of this pack that samples by itself, in whose name the run's lines are logged."""
Kept = TypeVar("Kept")


class Run:
    """Lives in the run's own model options, so it ends with them."""

    def __init__(self, guider: CFGGuider, sigmas: torch.Tensor) -> None:
        conditionings = getattr(guider, "original_conds", {}).get("positive") or ()
        self.positive = frozenset(conditioning["uuid"] for conditioning in conditionings)
        self.sigmas, self.steps = sigmas, len(sigmas) - 1
        self.calls = self.acted = 0
        """How often the model was called for the positive prompt, and in how many of these calls NASA acted."""
        self._kept: dict[Hashable, Any] = {}

    def keep(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What `make` returned for this key the first time. Threads of several GPUs must use different keys."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(frozen=True, kw_only=True)
class Positive:
    """Which chunks of a call are the positive prompt's.

    numbers: theirs in `cond_or_uncond`.
    areas: by uuid, what the host crops out of the latent for a chunk.
    size: (h, w) or (F, h, w) of the latent, before that.
    """

    numbers: frozenset[int] = frozenset({0})
    areas: Mapping[Hashable, Area] | None = None
    size: tuple[int, ...] | None = None


class Log(Protocol):
    """Is told of each run once."""

    def begins(self, guider: CFGGuider, run: Run) -> None: ...

    def ends(self, guider: CFGGuider, run: Run) -> None: ...


def begin_run(
    log: Log,
    executor: WrapperExecutor,
    guider: CFGGuider,
    sigmas: torch.Tensor,
    extra_args: dict[str, Any],
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Around the host's `Sampler.sample`."""
    run = Run(guider, sigmas)
    _tell(log.begins, guider, run)
    options = with_option(extra_args["model_options"], RUN, run)
    samples = executor(guider, sigmas, {**extra_args, "model_options": options}, *args, **kwargs)
    _tell(log.ends, guider, run)
    return samples


def _tell(log: Callable[[CFGGuider, Run], None], guider: CFGGuider, run: Run) -> None:
    """What is said of a run must not end it: guiders of other packs keep what they like where they like."""
    try:
        log(guider, run)
    except Exception:
        logging.warning("NASA Apply: of this sampling run nothing can be told; it goes on as it is", exc_info=True)


def mark_positive(
    executor: WrapperExecutor,
    model: BaseModel,
    conditionings: list[list[dict[str, Any]] | None],
    x: torch.Tensor,
    sigma: torch.Tensor,
    model_options: dict[str, Any],
) -> list[torch.Tensor]:
    """Around the host's `calc_cond_batch`."""
    run: Run | None = model_options.get("transformer_options", {}).get(RUN)
    if run is None or not run.positive:
        return executor(model, conditionings, x, sigma, model_options)
    # The host appends to a list copies from other lists, for areas; what was there first is the list's own.
    numbers = [i for i, several in enumerate(conditionings) if several and several[0].get("uuid") in run.positive]
    size = tuple(x.shape[2:])
    areas = {
        one["uuid"]: _area(one["area"], size)
        for i in numbers
        for one in conditionings[i]
        if one.get("area") is not None
    }
    positive = Positive(numbers=frozenset(numbers), areas=areas, size=size)
    return executor(model, conditionings, x, sigma, with_option(model_options, POSITIVE, positive))


def with_option(model_options: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """A copy in which the network's calls find `value` under `key`."""
    options = model_options.get("transformer_options", {})
    return {**model_options, "transformer_options": {**options, key: value}}


def _area(area: tuple[int, ...], size: tuple[int, ...]) -> Area:
    """The host's (sizes..., offsets...) for a latent of this size: completed, and cut off at the border, as it does."""
    sizes, offsets = area[: len(area) // 2], area[len(area) // 2 :]
    missing = max(len(size) - len(sizes), 0)
    sizes, offsets = (*size[:missing], *sizes)[: len(size)], (*(0,) * missing, *offsets)[: len(size)]
    return tuple(map(min, (w - o for w, o in zip(size, offsets, strict=True)), sizes)), offsets
