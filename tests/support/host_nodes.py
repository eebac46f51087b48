"""Call the host's own nodes, in the API style of this host version."""

from __future__ import annotations

import importlib
from typing import Any

from comfy_api.latest import io


def has_node(path: str) -> bool:
    """Whether this version of the host has the node."""
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(_module_path(module)), name)
    except ModuleNotFoundError:
        return False


def run_node(path: str, **inputs: Any) -> Any:
    """The first output of a node, or all of them as a tuple where it has several.

    Args:
        path: module and class, such as "nodes_pag.PerturbedAttentionGuidance"; a class alone is in the host's nodes.py.
    """
    module, _, name = path.rpartition(".")
    node = getattr(importlib.import_module(_module_path(module)), name)
    execute = node.execute if issubclass(node, io.ComfyNode) else getattr(node(), node.FUNCTION)
    outputs = execute(**inputs)
    outputs = getattr(outputs, "result", outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def _module_path(module: str) -> str:
    return f"comfy_extras.{module}" if module else "nodes"
