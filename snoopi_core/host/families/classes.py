"""Find the host's network classes by name: older versions of ComfyUI do not have all of them."""

from __future__ import annotations

import importlib

import torch


def existing(module: str, *names: str) -> tuple[type[torch.nn.Module], ...]:
    """The classes of these names that this ComfyUI has in `module`; () if there is no such module."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not module.startswith(error.name):
            raise
        return ()
    return tuple(getattr(found, name) for name in names if hasattr(found, name))
