"""Text on a node, while its graph is on the screen."""

from __future__ import annotations

import sys

from comfy_execution.utils import get_executing_context


def show_text(text: str) -> None:
    """Show `text` on the node that is running, where a server runs it. It stays there until another takes its place."""
    context = get_executing_context()
    # Not imported: a script that uses the nodes as a library has no server, and importing it would start half of one.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id, server.client_id)
