"""A run's processes: joined by accelerate as `accelerate launch` set it up, each with its share of the batch."""

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
    """Join the run's other processes.

    Raises:
        RecipeError: accelerate was told to do what this trainer does not, or the batch cannot be shared out evenly.
    """
    # else older transformers load weights in one process alone, also of what FSDP never hands on: the text encoder
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    if recipe.loop.threads:
        torch.set_num_threads(recipe.loop.threads)
    accelerator = Accelerator(
        mixed_precision=recipe.loop.precision,
        cpu=cpu,
        # the others wait while one writes a checkpoint, on a slow disk for longer than NCCL's 10 minutes
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
    """Rows of a micro-batch: those that a process works on at once."""
    own = recipe.loop.batch_size // processes
    return min(recipe.loop.micro_batch or own, own)


def share_of_work(recipe: Recipe, accelerator: Accelerator) -> str:
    """How a batch is spread, in words."""
    batch, processes = recipe.loop.batch_size, accelerator.num_processes
    rows = rows_at_once(recipe, processes)
    kind = accelerator.distributed_type
    joined = "" if kind == DistributedType.NO else f" ({kind.value})"
    return (
        f"on {accelerator.device.type}{joined}: a batch of {batch} is {processes} process(es) x "
        f"{batch // processes // rows} micro-batch(es) x {rows} row(s)"
    )


def check_launch(accelerator: Accelerator, recipe: Recipe) -> None:
    """Refuse what would train something else, or save nothing, without a word.

    Raises:
        RecipeError: accelerate was told to use DeepSpeed, Megatron, FSDP's version 1, or FSDP with 8-bit moments; to
            compile; or to add up gradients itself.
    """
    kind, dynamo = accelerator.distributed_type, accelerator.state.dynamo_plugin.backend
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise RecipeError(f"accelerate was told to use {kind.value}; supported: --multi_gpu, or --use_fsdp, version 2")
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise RecipeError("accelerate was told to use FSDP's version 1; give it --fsdp_version 2")
    if kind == DistributedType.FSDP and recipe.loop.optimizer != "adamw":
        raise RecipeError(f"loop.optimizer {recipe.loop.optimizer} knows no FSDP; use loop.optimizer=adamw")
    if dynamo != DynamoBackend.NO:
        raise RecipeError(
            f"accelerate was told to compile (dynamo_backend {dynamo.value}); use loop.compile=true instead"
        )
    if (steps := accelerator.gradient_accumulation_steps) != 1:
        raise RecipeError(
            f"accelerate was told to add up gradients (gradient_accumulation_steps {steps}); set that to 1, and use "
            "loop.micro_batch instead"
        )


def on_main(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """What `action` returns in the first process, in every process.

    Raises:
        Exception: the action's own, in the first process.
        FailedElsewhere: in the others.
    """
    result: T | None = None
    error: Exception | None = None
    if accelerator.is_main_process:
        try:
            result = action()
        except Exception as caught:  # whatever it is: the others must not wait for what never comes
            error = caught
    told = [result, error is None]
    broadcast_object_list(told)
    if error is not None:
        raise error
    if not told[1]:
        raise FailedElsewhere
    return told[0]
