"""Nodes that have another name than in workflows that were saved before: the host puts the new one in their place.

Node ids are frozen, so there is none. A rename would be, say:

    io.NodeReplace(new_node_id="SnoopiNew", old_node_id="SnoopiOld", old_widget_ids=["alpha"],
                   input_mapping=[{"new_id": "strength", "old_id": "alpha"}],
                   output_mapping=[{"new_idx": 0, "old_idx": 0}])
"""

from __future__ import annotations

from comfy_api.latest import io

REPLACEMENTS: tuple[io.NodeReplace, ...] = ()
