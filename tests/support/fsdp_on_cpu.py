"""An Accelerator that uses FSDP on CPUs."""

from __future__ import annotations

import accelerate
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin


class Accelerator(accelerate.Accelerator):
    """Chooses FSDP (version 2) as accelerate would after `accelerate launch --use_fsdp` on GPUs."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["BasicTransformerBlock", "ResnetBlock2D"],
        )
