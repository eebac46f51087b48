"""Fixtures for tests of the nodes."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch.nn import Module


def _models(base: Path, kind: str) -> Iterator[Path]:
    """A folder of models, emptied after each file of tests: together they write several gigabytes."""
    path = base / "models" / kind
    path.mkdir(parents=True, exist_ok=True)
    yield path
    shutil.rmtree(path)
    path.mkdir()


@pytest.fixture(scope="module")
def folder(host_base: Path) -> Iterator[Path]:
    """The host's folder of checkpoints."""
    yield from _models(host_base, "checkpoints")


@pytest.fixture(scope="module")
def loras(host_base: Path) -> Iterator[Path]:
    """The host's folder of LoRAs."""
    yield from _models(host_base, "loras")


@pytest.fixture(scope="session")
def loader() -> Any:
    """The node PG-SB Loader."""
    return importlib.import_module("snoopi_pack.nodes.pgsb_loader").PGSBLoader


@pytest.fixture(autouse=True)
def no_dead_models() -> Iterator[None]:
    """Forget models that are loaded, but whose patcher is gone; the host keeps them until their network is gone too.

    As long as there is one, the host collects all garbage before and while it loads any model, so that each test takes
    ten times as long.
    """
    yield
    import comfy.model_management  # here, as pytest-xdist's controller needs neither it nor torch

    loaded = comfy.model_management.current_loaded_models
    loaded[:] = [each for each in loaded if not each.is_dead()]


@pytest.fixture
def cleaned() -> Iterator[list[Module]]:
    """Networks whose modules lose their own forwards after the test, since other tests look at these modules."""
    networks: list[Module] = []
    yield networks
    for network in networks:
        for module in network.modules():
            vars(module).pop("forward", None)
