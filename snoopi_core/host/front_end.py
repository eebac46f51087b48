"""Show text and warnings on nodes in the front end; web/node_text.js draws them.

Not with ComfyUI's own `send_progress_text`: newer front ends delete such a text when the run ends.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

from comfy_execution.utils import get_executing_context

EVENT = "snoopi.node_text"
NODES_KEY = "snoopi_nodes"
"""Attribute of a log record: ids of the nodes that it is about, see `about_nodes`."""
_PACK = str(Path(__file__).parents[2]) + os.sep
_sampled_nodes: ContextVar[tuple[str, ...]] = ContextVar("snoopi_sampled_nodes", default=())


def running_node() -> str:
    """The id of the node that the host executes; "" if it executes none, as in scripts."""
    context = get_executing_context()
    # Nodes that another one expands into have ids such as "5.0.0.1", and the front end knows only 5.
    return "" if context is None else str(context.node_id).partition(".")[0]


def show_text(text: str, node: str = "") -> None:
    """Show `text` on a node (default: the running one) until another replaces it; does nothing without a server."""
    _send("text", text, node or running_node())


def about_nodes(nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The argument `extra` of a log call whose warning is about these nodes, and not about the running one."""
    return {NODES_KEY: tuple(dict.fromkeys(filter(None, nodes)))}


@contextmanager
def warnings_about(nodes: Iterable[str]) -> Iterator[None]:
    """Warnings logged inside are about these nodes: a sampler is running, but NASA Apply should show them."""
    token = _sampled_nodes.set(about_nodes(nodes)[NODES_KEY])
    try:
        yield
    finally:
        _sampled_nodes.reset(token)


class NodeWarnings(logging.Handler):
    """Shows each warning that this pack logs while a node runs on the node that it is about.

    So a warning only has to be logged, with the problem first and then the remedy.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        if not record.pathname.startswith(_PACK):
            return
        try:
            for node in getattr(record, NODES_KEY, ()) or _sampled_nodes.get() or (running_node(),):
                _send("warning", record.getMessage(), node)
        except Exception:
            self.handleError(record)


def show_warnings() -> None:
    """Begin to show warnings on nodes; later calls change nothing."""
    root = logging.getLogger()
    if not any(isinstance(handler, NodeWarnings) for handler in root.handlers):
        root.addHandler(NodeWarnings())


def _send(kind: Literal["text", "warning"], text: str, node: str) -> None:
    # Not imported: scripts that use the nodes as a library have no server, and the import would partly start one.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    context = get_executing_context()
    if server is None or server.client_id is None or context is None:
        return
    message = {"kind": kind, "text": text, "node": node, "source": running_node()}
    message["workflow"] = _workflow_id(server, context.prompt_id)
    server.send_sync(EVENT, message, server.client_id)


def _workflow_id(server: Any, prompt_id: str) -> str | None:
    """The id of the workflow that a running prompt was made from: another one may be open now. None if unknown."""
    for _, running_id, _, data, *_ in tuple(server.prompt_queue.currently_running.values()):
        if running_id == prompt_id:
            for key in ("extra_pnginfo", "workflow", "id"):  # programs other than the front end may send anything
                data = data.get(key) if isinstance(data, dict) else None
            return data
    return None
