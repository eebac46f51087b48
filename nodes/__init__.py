"""The nodes, as the host finds them.

The host has a module of the same name, so everything inside the pack is imported relatively.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .nasa_apply import NASAApply
from .nasa_inspect import NASAInspect
from .nasa_scale_sweep import NASAScaleSweep
from .one_step_sampler import OneStepSampler
from .pgsb_loader import PGSBLoader


class SnoopiExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [PGSBLoader, NASAApply, OneStepSampler, NASAScaleSweep, NASAInspect]


async def comfy_entrypoint() -> SnoopiExtension:
    return SnoopiExtension()
