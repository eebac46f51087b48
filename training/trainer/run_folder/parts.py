"""Checkpoints under FSDP: every process writes its own part of the tensors, and the first one makes it a checkpoint.

Nothing is gathered, so no process needs memory for the whole state, and all of them write and hash at once. A reader
joins the parts (`checkpoint.load_state`), so a run resumes with any number of processes, and its student is exported in
one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from training.config import Recipe
from training.trainer.distributed.accelerator import on_main
from training.trainer.run_folder.checkpoint import RunState
from training.trainer.run_folder.write import begin, commit, removed_after_error, write_tensors


def all_see(accelerator: Accelerator, file: Path) -> bool:
    """Whether every process sees `file` as the first one has just written it, and not an older one on a disk of its
    own."""
    seen: int | None = None
    with suppress(OSError), file.open("rb") as opened:  # opened, since networks' disks remember what a name was
        seen = os.stat(opened.fileno()).st_mtime_ns
    everyones = gather_object([seen])
    return None not in everyones and len(set(everyones)) == 1


def save_parts(folder: Path, state: RunState, recipe: Recipe, accelerator: Accelerator) -> Path:
    """As `save_state`, in every process at once; `state` has this process's part of the tensors.

    Raises:
        OSError: in the first process: a process could not write its part.
        FailedElsewhere: in the others.
    """
    final = folder / f"step-{state.iteration:08d}"
    temporary = on_main(accelerator, lambda: begin(folder, state.iteration))
    if temporary is None:
        return final
    parts = [f".{rank}-of-{accelerator.num_processes}" for rank in range(accelerator.num_processes)]
    sums, error = dict[str, str](), ""
    try:
        sums = write_tensors(temporary, state, parts[accelerator.process_index])
    except Exception as caught:  # any error: otherwise the other processes would wait for this one forever
        error = f"process {accelerator.process_index}: {caught}"
    everyones = gather_object([(sums, error)])

    def finish() -> Path:
        with removed_after_error(temporary):
            if errors := [error for _, error in everyones if error]:
                raise OSError("; ".join(errors))
            sums = {name: digest for found, _ in everyones for name, digest in found.items()}
            commit(temporary, final, state, recipe, sums, parts)
        return final

    return on_main(accelerator, finish)
