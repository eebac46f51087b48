"""Which node a message is about; tests/live/server/test_strength_nodes.py has the messages of real runs."""

from __future__ import annotations

import pytest
from comfy_execution.utils import CurrentNodeContext

from snoopi_core.host.front_end import about_nodes, running_node

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
