"""Which node a message is about; tests/live/server/test_strength_nodes.py has the messages of real runs."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from comfy_execution.utils import CurrentNodeContext

from snoopi_core.host.front_end import about_nodes, running_node, show_text

pytestmark = pytest.mark.host


@pytest.mark.parametrize(
    ("executed", "shown"),
    [("5", "5"), ("12:5", "12:5"), ("5.0.0.2", "5"), ("12:5.0.0.2.0.0.1", "12:5")],
    ids=["plain", "in a subgraph", "of a node that expands", "both"],
)
def test_the_node_that_the_front_end_knows(executed: str, shown: str) -> None:
    with CurrentNodeContext("a prompt", executed):
        assert running_node() == shown
    assert running_node() == ""  # as in scripts


def test_each_node_is_named_once() -> None:
    assert about_nodes(["5", "", "6", "5"]) == {"snoopi_nodes": ("5", "6")}


@pytest.mark.parametrize(
    ("extra_data", "workflow"),
    [
        ({"extra_pnginfo": {"workflow": {"id": "of the file"}}}, "of the file"),
        ({}, None),
        ({"extra_pnginfo": {"workflow": "a text"}}, None),
        ({"extra_pnginfo": ["a list"]}, None),
    ],
    ids=["the front end", "nothing", "a text", "a list"],
)
def test_a_prompt_with_any_workflow(extra_data, workflow, monkeypatch) -> None:
    """Programs of others queue prompts too: the text of a node must not stop them."""
    sent = []
    running = {0: (0, "a prompt", {}, extra_data, [])}
    server = SimpleNamespace(
        client_id="a client",
        prompt_queue=SimpleNamespace(currently_running=running),
        send_sync=lambda event, message, client: sent.append(message["workflow"]),
    )
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    with CurrentNodeContext("a prompt", "5"):
        show_text("a text")
    assert sent == [workflow]
