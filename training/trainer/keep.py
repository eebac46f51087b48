"""What a run keeps, and how it goes on from there: by all its processes together, the files by the first alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from training.config import RecipeError
from training.trainer.distributed.state_dicts import (
    load_optimizer_state,
    load_trained_state,
    optimizer_state,
    trained_state,
)
from training.trainer.run_folder.checkpoint import RunState

if TYPE_CHECKING:
    from training.trainer.trainer import Run

log = logging.getLogger(__name__)


def capture(run: Run) -> RunState:
    """The state of now; whole in the first process, where networks are spread over several."""
    d = run.distillation
    networks = {"student": trained_state(run.student), "lora": trained_state(d.lora_teacher)}
    if run.mean is not None:
        with run.averaged():
            networks["ema"] = {name: weight.clone() for name, weight in trained_state(run.student).items()}
    return RunState(
        iteration=run.iteration,
        networks=networks,
        optimizers={
            "student": optimizer_state(run.student, d.student_optimizer),
            "lora": optimizer_state(d.lora_teacher, d.lora_optimizer),
        },
        position=run.prompts.state_dict(),
        counts=run.counts | {"averaged": run.mean.updates if run.mean is not None else 0},
        teacher=run.teacher_fingerprint,
        distance=run.distance,
    )


def restore(run: Run, state: RunState) -> None:
    """Put a run where `state` was captured. What the recipe says now counts, where it was changed since.

    Raises:
        RecipeError: the teacher has changed.
        ValueError: the weights are not those that this run trains.
    """
    if state.teacher != run.teacher_fingerprint:
        raise RecipeError(
            f"the teacher {run.recipe.teacher.path!r} is not the one that this run was started with (its weights "
            "differ); give the old one, or begin another run with another output.folder"
        )
    d = run.distillation
    if run.mean is not None:  # one that the recipe did not ask for before begins with the student of now
        load_trained_state(run.student, state.averaged)
        run.mean.load(state.counts["averaged"])
    load_trained_state(run.student, state.networks["student"])
    load_trained_state(d.lora_teacher, state.networks["lora"])
    for network, optimizer, saved in (
        (run.student, d.student_optimizer, state.optimizers["student"]),
        (d.lora_teacher, d.lora_optimizer, state.optimizers["lora"]),
    ):
        load_optimizer_state(network, optimizer, saved)
        for group in optimizer.param_groups:  # learning rates are set before every iteration
            group["weight_decay"] = run.recipe.loop.weight_decay
    try:
        run.prompts.load_state_dict(state.position)
    except (KeyError, TypeError):
        log.warning("prompts.source is of another kind than the one that the run was started with; it begins anew")
    run.counts, run.iteration = state.counts, state.iteration
