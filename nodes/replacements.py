"""Renamed nodes: the host replaces old node ids in saved workflows with new ones.

Node ids never change, so the list is empty. A rename would look like this:

    io.NodeReplace(new_node_id="SnoopiNew", old_node_id="SnoopiOld", old_widget_ids=["alpha"],
                   input_mapping=[{"new_id": "strength", "old_id": "alpha"}],
                   output_mapping=[{"new_idx": 0, "old_idx": 0}])
"""

from __future__ import annotations

from comfy_api.latest import io

REPLACEMENTS: tuple[io.NodeReplace, ...] = ()
