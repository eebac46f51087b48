"""How much a test does: little in the gate (`make test`), everything in the full run (`make test-all`).

    SCALED = effort(gate=10, full=300)      # at module level: examples, prompts, rounds ...

    @pytest.mark.full       the test runs in the full run only
    @pytest.mark.scaled     the test runs in both, with an `effort` that differs; the full run repeats it

    @pytest.mark.parametrize("name", some(NAMES, 3))    three of them in the gate, all in the full run

The run is chosen with pytest's option --effort (tests/conftest.py): gate; full; beyond, which is what the full run
has beyond the gate; or wide, every test with the gate's numbers, for an older ComfyUI. The default is the gate.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args

import pytest

T = TypeVar("T")
Effort = Literal["gate", "wide", "full", "beyond"]
EFFORTS = get_args(Effort)
VARIABLE = "SNOOPI_TEST_EFFORT"  # set from --effort before any test file is imported


def effort(*, gate: T, full: T) -> T:
    """The value for this run."""
    return gate if os.environ.get(VARIABLE, "gate") in ("gate", "wide") else full


def some(values: Sequence[Any], count: int) -> list[Any]:
    """Parameters of a test: `count` of the values, evenly spread, in the gate; all of them in the full run."""
    in_the_gate = {number * len(values) // count for number in range(count)}
    return [
        value if number in in_the_gate else pytest.param(value, marks=pytest.mark.full)
        for number, value in enumerate(values)
    ]
