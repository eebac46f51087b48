"""Fixtures for the tests of the student of the shapes world, whose pictures leave no doubt about an effect."""

from __future__ import annotations

from pathlib import Path

import pytest
from effort import effort
from host_world import STUDENT, HostStudent

from experiments.removal import Pair, modal_pairs
from experiments.shapes.world import SHAPES
from snoopi_core.formats.checkpoint import read_metadata

COUNT = effort(gate=16, full=50)  # images a prompt


@pytest.fixture(scope="session")
def alpha(pack_root: Path) -> float:
    """The student's recommended alpha."""
    found = read_metadata(pack_root / "models" / STUDENT).recommended_alpha
    assert found is not None
    return found


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """Prompts, each with a negative that names what the student draws most often for it."""
    return modal_pairs(SHAPES, HostStudent(), count=COUNT)
