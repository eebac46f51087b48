"""The trained networks, their average and their optimisers, as a run's checkpoints hold them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.fsdp import FSDPModule

from snoopi_core.formats.layouts import StateDict
from training.distill.ema import EMA
from training.distill.step import Distillation
from training.trainer.distributed.state_dicts import (
    OptimizerState,
    load_optimizer_state,
    load_trained_state,
    optimizer_state,
    trained_state,
)
from training.trainer.run_folder.checkpoint import RunState


@contextmanager
def averaged(ema: EMA | None, student: nn.Module) -> Iterator[None]:
    """Inside this context, the student has the averaged weights."""
    if ema is None:
        yield
        return
    _free_whole_weights(student)
    try:
        with ema.in_place():
            yield
    finally:
        _free_whole_weights(student)


def _free_whole_weights(network: nn.Module) -> None:
    """FSDP keeps the outermost module's whole weights after a forward pass without gradients: the next pass would use
    them, and not those that have been exchanged."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def networks_state(d: Distillation, ema: EMA | None, *, whole: bool) -> dict[str, StateDict]:
    """`RunState.networks`. Call it in every process; only the first gets the whole state, or each its part of it."""
    networks = {
        name: trained_state(net, whole=whole) for name, net in (("student", d.student), ("lora", d.lora_teacher))
    }
    if ema is not None:
        with averaged(ema, d.student):
            means = trained_state(d.student, whole=whole)
            networks["ema"] = {name: value.to("cpu", copy=True) for name, value in means.items()}
    return networks


def optimizers_state(d: Distillation, *, whole: bool) -> dict[str, OptimizerState]:
    """`RunState.optimizers`, as `networks_state`."""
    return {
        "student": optimizer_state(d.student, d.student_optimizer, whole=whole),
        "lora": optimizer_state(d.lora_teacher, d.lora_optimizer, whole=whole),
    }


def load_networks(d: Distillation, ema: EMA | None, state: RunState) -> None:
    """Load both, in every process.

    Raises:
        ValueError: the weights are not those that this run trains.
    """
    if ema is not None:  # if the checkpoint has no average, it starts from the student's weights
        load_trained_state(d.student, state.averaged)
        ema.load(state.counts["averaged"])
    load_trained_state(d.student, state.networks["student"])
    load_trained_state(d.lora_teacher, state.networks["lora"])
    for network, optimizer, saved in (
        (d.student, d.student_optimizer, state.optimizers["student"]),
        (d.lora_teacher, d.lora_optimizer, state.optimizers["lora"]),
    ):
        load_optimizer_state(network, optimizer, saved)
        for group in optimizer.param_groups:  # learning rates are set before every iteration
            group["weight_decay"] = d.recipe.loop.weight_decay
