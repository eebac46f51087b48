"""Types of settings that are more than a number or a text, and how they may be written."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

T = TypeVar("T")
# A single value is accepted as a list of one, so `output.trackers=wandb` works in a shell without quotes.
Several = Annotated[tuple[T, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


VsdWeight = Literal["sigma_squared", "dmd", "uniform"]


def split_weight(source: str) -> tuple[str, float]:
    """The source and the weight of one of several, `source:weight`; the weight is 1 if there is none.

    Raises:
        ValueError: the weight is not above 0.
    """
    path, _, tail = source.rpartition(":")
    try:
        weight = float(tail) if path else None
    except ValueError:  # of a Windows path, or a data set's configuration
        weight = None
    if weight is None:
        return source, 1.0
    if not 0 < weight < math.inf:
        raise ValueError(f"the weight of {source!r} is {weight:g}, expected a number above 0")
    return path, weight


def _check_sources(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float | list | tuple):
        raise ValueError('expected a text, or a list of texts such as ["a.txt:0.7", "b.csv:0.3"]')
    if isinstance(value, str) and re.fullmatch(r"\[.*[,:].*\]", value):
        raise ValueError(
            "expected a list of texts in quotes; a shell may take the quotes away, and in double quotes a backslash "
            """begins an escape. Give "prompts.source=['a.txt:0.7', 'b.csv:0.3']", or write it in a recipe file"""
        )
    if not isinstance(value, list | tuple):
        return value
    if not value or not all(isinstance(one, str) for one in value):
        raise ValueError('expected at least one source in the list, such as ["a.txt:0.7", "b.csv:0.3"]')
    for one in value:
        split_weight(one)
    return tuple(value)


def _parse_timesteps(value: Any) -> Any:
    """A list as it is, a single number as a list of one, and a text such as "999, 499", which needs no brackets."""
    if isinstance(value, str):
        return tuple(value.strip("[] ").replace(",", " ").split())
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_decreasing(timesteps: tuple[int, ...]) -> tuple[int, ...]:
    if list(timesteps) != sorted(set(timesteps), reverse=True):
        raise ValueError("expected strictly decreasing timesteps, such as [999, 749, 499, 249]")
    return timesteps


Sources = Annotated[str | tuple[str, ...], BeforeValidator(_check_sources)]
Timesteps = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_parse_timesteps), AfterValidator(_check_decreasing)
]
Shift = Annotated[float, Field(ge=0.01, le=100)]
StepWeights = tuple[Annotated[float, Field(ge=0)], ...]
