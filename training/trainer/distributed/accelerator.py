"""Sets up accelerate for a run, and divides the batch among its processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend, InitProcessGroupKwargs, broadcast_object_list

from training.config import Recipe, RecipeError
from training.config.errors import FailedElsewhere

T = TypeVar("T")


def start_accelerator(recipe: Recipe, *, cpu: bool) -> Accelerator:
    """Join the run's other processes, as `accelerate launch` set them up.

    Raises:
        RecipeError: accelerate has settings that this trainer does not support, or the batch cannot be split evenly.
    """
    # otherwise older transformers load weights in one process only, also those that FSDP does not distribute
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    if recipe.loop.threads:
        torch.set_num_threads(recipe.loop.threads)
    accelerator = Accelerator(
        mixed_precision=recipe.loop.precision,
        cpu=cpu,
        # the others wait while one process writes a checkpoint, which may take longer than NCCL's default of 10 minutes
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=1))],
    )
    check_launch(accelerator, recipe)
    rows_of_process(recipe, accelerator)
    return accelerator


def rows_of_process(recipe: Recipe, accelerator: Accelerator) -> slice:
    """This process's rows of the batch.

    Raises:
        RecipeError: the batch cannot be split evenly over processes and micro-batches.
    """
    batch, processes = recipe.loop.batch_size, accelerator.num_processes
    own = batch // processes
    if own == 0 or batch % processes or own % min(recipe.loop.micro_batch or own, own):
        raise RecipeError(
            f"loop.batch_size {batch} is not a multiple of {processes} process(es) x loop.micro_batch "
            f"{recipe.loop.micro_batch or own}; change one of the three"
        )
    return slice(accelerator.process_index * own, (accelerator.process_index + 1) * own)


def rows_at_once(recipe: Recipe, processes: int) -> int:
    """Rows of a micro-batch."""
    own = recipe.loop.batch_size // processes
    return min(recipe.loop.micro_batch or own, own)


def describe_batch_split(recipe: Recipe, accelerator: Accelerator) -> str:
    """A description of how a batch is split over processes and micro-batches."""
    batch, processes = recipe.loop.batch_size, accelerator.num_processes
    rows = rows_at_once(recipe, processes)
    kind = accelerator.distributed_type
    joined = "" if kind == DistributedType.NO else f" ({kind.value})"
    return (
        f"on {accelerator.device.type}{joined}: a batch of {batch} is {processes} process(es) x "
        f"{batch // processes // rows} micro-batch(es) x {rows} row(s)"
    )


def check_launch(accelerator: Accelerator, recipe: Recipe) -> None:
    """Refuse settings of accelerate that would silently change the training or break saving.

    Raises:
        RecipeError: DeepSpeed, Megatron, FSDP version 1, FSDP with 8-bit moments, compilation or gradient accumulation
            by accelerate.
    """
    kind, dynamo = accelerator.distributed_type, accelerator.state.dynamo_plugin.backend
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise RecipeError(f"accelerate is set to {kind.value}; supported: --multi_gpu, or --use_fsdp --fsdp_version 2")
    if kind == DistributedType.FSDP:
        check_fsdp(2 if accelerator.is_fsdp2 else 1, recipe)
    if dynamo != DynamoBackend.NO:
        raise RecipeError(
            f"accelerate is set to compile (dynamo_backend {dynamo.value}); set it to no, and use loop.compile=true"
        )
    if (steps := accelerator.gradient_accumulation_steps) != 1:
        raise RecipeError(
            f"accelerate is set to accumulate gradients (gradient_accumulation_steps {steps}); set that to 1, and use "
            "loop.micro_batch"
        )


def check_fsdp(version: int, recipe: Recipe) -> None:
    """Refuse what does not work with FSDP.

    Raises:
        RecipeError: version 1, or 8-bit moments.
    """
    if version != 2:
        raise RecipeError(f"accelerate is set to FSDP version {version}; give it --fsdp_version 2")
    if recipe.loop.optimizer != "adamw":
        raise RecipeError(f"loop.optimizer={recipe.loop.optimizer} does not support FSDP; use loop.optimizer=adamw")


def on_main(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Run `action` in the first process only, and return its result in every process.

    Raises:
        Exception: in the first process, the action's own.
        FailedElsewhere: in the others, if the action failed.
    """
    result: T | None = None
    error: Exception | None = None
    if accelerator.is_main_process:
        try:
            result = action()
        except Exception as caught:  # any error: otherwise the other processes would wait forever
            error = caught
    shared = [result, error is None]
    broadcast_object_list(shared)
    if error is not None:
        raise error
    if not shared[1]:
        raise FailedElsewhere
    return shared[0]
