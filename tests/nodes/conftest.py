"""Fixtures for tests of the nodes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch


@pytest.fixture(scope="session")
def folder(host_base: Path) -> Path:
    """The host's folder of checkpoints."""
    path = host_base / "models" / "checkpoints"
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def loras(host_base: Path) -> Path:
    """The host's folder of LoRAs."""
    path = host_base / "models" / "loras"
    path.mkdir(parents=True, exist_ok=True)
    return path


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
    loaded = comfy.model_management.current_loaded_models
    loaded[:] = [each for each in loaded if not each.is_dead()]


@pytest.fixture
def cleaned() -> Iterator[list[torch.nn.Module]]:
    """Networks whose modules lose their own forwards after the test, since other tests look at these modules."""
    networks: list[torch.nn.Module] = []
    yield networks
    for network in networks:
        for module in network.modules():
            vars(module).pop("forward", None)
