"""Modules without memory: built on the meta device to be filled from a file, or to be described without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from accelerate import init_empty_weights
from torch import nn

_WITHOUT_WEIGHTS: ContextVar[bool] = ContextVar("without_weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Inside this context models are built from their configs alone, on the meta device; no weight is read."""
    token = _WITHOUT_WEIGHTS.set(True)
    try:
        yield
    finally:
        _WITHOUT_WEIGHTS.reset(token)


def build_on_meta(make: Callable[[], nn.Module]) -> nn.Module | None:
    """The module that `make` returns, on the meta device, inside `without_weights`; otherwise None."""
    if not _WITHOUT_WEIGHTS.get():
        return None
    with torch.device("meta"):  # not init_empty_weights, which would separate tied weights
        return make().to("meta")  # also moves buffers that were created on another device


def build_module(
    make: Callable[[], nn.Module], weights: Callable[[nn.Module], Mapping[str, torch.Tensor]]
) -> nn.Module:
    """A module with the given weights, in fp32; no memory is spent on initial weights.

    Args:
        make: builds the module; its parameters are left without memory, its buffers (in no file) are not.
        weights: takes the module and returns its weights under the module's names.
    """
    if (module := build_on_meta(make)) is not None:
        return module.float()
    with init_empty_weights():
        module = make()
    module.load_state_dict(weights(module), assign=True)
    return module.float()
