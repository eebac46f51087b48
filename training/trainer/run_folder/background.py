"""Writes checkpoints in a thread beside the training, one at a time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import torch
from torch.distributed.tensor import DTensor

from snoopi_core.formats.layouts import StateDict
from training.trainer.distributed.state_dicts import OptimizerState
from training.trainer.run_folder.checkpoint import RunState

log = logging.getLogger(__name__)


def snapshot(state: RunState, live: Iterable[torch.Tensor]) -> RunState:
    """`state` without any memory of the tensors `live`, which the training goes on to change.

    On a GPU the state was copied to the CPU when it was gathered, and nothing more is copied; on a CPU its weights are
    the network's own.
    """
    shards = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in live)  # of FSDP
    own = {shard.untyped_storage().data_ptr() for shard in shards}

    def apart(tensors: StateDict) -> StateDict:
        return {
            name: value.clone() if value.untyped_storage().data_ptr() in own else value
            for name, value in tensors.items()
        }

    return replace(
        state,
        networks={name: apart(weights) for name, weights in state.networks.items()},
        optimizers={
            name: OptimizerState(tensors=apart(saved.tensors), settings=copy.deepcopy(saved.settings))
            for name, saved in state.optimizers.items()
        },
        position=copy.deepcopy(state.position),
        counts=dict(state.counts),
    )


class BackgroundWriter:
    """Runs one function at a time in a thread, which ends before the process does."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def begin(self, write: Callable[[], None]) -> None:
        """Start `write`. Call `finish` before."""
        self._pending = self._threads.submit(write)

    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._pending is None or self._pending.done()

    def finish(self) -> None:
        """Wait for what was begun; raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for what was begun, after another error."""
        if self._pending is not None:
            wait([self._pending])
            if error := self._pending.exception():
                log.error("the checkpoint in the background failed, too: %s", error)
        self._threads.shutdown()
