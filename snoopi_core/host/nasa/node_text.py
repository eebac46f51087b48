"""Show text on a node in the front end."""

from __future__ import annotations

import sys

from comfy_execution.utils import get_executing_context


def show_text(text: str) -> None:
    """Show `text` on the running node until another text replaces it; does nothing without a server."""
    context = get_executing_context()
    # Not imported: scripts that use the nodes as a library have no server, and the import would partly start one.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id, server.client_id)
