"""The nodes of this pack, and the extension that registers them.

The host has a module named `nodes` too, so everything inside the pack is imported relatively.
"""

from __future__ import annotations

from comfy_api.latest import ComfyAPI, ComfyExtension, io

from ..snoopi_core.host.front_end import show_warnings
from .nasa_apply import NASAApply
from .nasa_inspect import NASAInspect
from .nasa_scale_sweep import NASAScaleSweep
from .one_step_sampler import OneStepSampler
from .pgsb_loader import PGSBLoader
from .replacements import REPLACEMENTS

# By id, for tools that read this without importing it; the host asks the extension.
NODE_CLASS_MAPPINGS = {
    "SnoopiPGSBLoader": PGSBLoader,
    "SnoopiNASAApply": NASAApply,
    "SnoopiOneStepSampler": OneStepSampler,
    "SnoopiNASAScaleSweep": NASAScaleSweep,
    "SnoopiNASAInspect": NASAInspect,
}


class SnoopiExtension(ComfyExtension):
    async def on_load(self) -> None:
        show_warnings()
        for replacement in REPLACEMENTS:
            await ComfyAPI().node_replacement.register(replacement)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODE_CLASS_MAPPINGS.values())


async def comfy_entrypoint() -> SnoopiExtension:
    return SnoopiExtension()
