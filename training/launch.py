"""What `accelerate launch`, or a config file of accelerate's, asks for and this trainer does not do."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend

from training.config import RecipeError


def check_launch(accelerator: Accelerator) -> None:
    """Refuse what would train something else, or save nothing, without a word.

    Raises:
        RecipeError: accelerate was told to use DeepSpeed, Megatron or FSDP's version 1, to compile, or to add up
            gradients itself.
    """
    kind, dynamo = accelerator.distributed_type, accelerator.state.dynamo_plugin.backend
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise RecipeError(f"accelerate was told to use {kind.value}; supported: --multi_gpu, or --use_fsdp, version 2")
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise RecipeError("accelerate was told to use FSDP's version 1; give it --fsdp_version 2")
    if dynamo != DynamoBackend.NO:
        raise RecipeError(
            f"accelerate was told to compile (dynamo_backend {dynamo.value}); use loop.compile=true instead"
        )
    if (steps := accelerator.gradient_accumulation_steps) != 1:
        raise RecipeError(
            f"accelerate was told to add up gradients (gradient_accumulation_steps {steps}); set that to 1, and use "
            "loop.micro_batch instead"
        )
