"""Fixtures for tests of the nodes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def cleaned() -> Iterator[list[torch.nn.Module]]:
    """Networks whose modules lose their own forwards after the test, since other tests look at these modules."""
    networks: list[torch.nn.Module] = []
    yield networks
    for network in networks:
        for module in network.modules():
            vars(module).pop("forward", None)
