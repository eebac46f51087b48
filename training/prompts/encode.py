"""Encode a recipe's prompts once, and store the embeddings on disk for all its runs.

Under `accelerate launch` each process encodes its share. Start it again to continue after an interruption, or to add
prompts: those that are stored already are skipped.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from training.config import Recipe, RecipeError, load_recipe, recipe_names, split_words
from training.console import long_step, run_command, set_up_console

if TYPE_CHECKING:
    from training.prompts.source import CountTokens

log = logging.getLogger("training.prompts.encode")
_SAMPLE = 2000  # prompts from which the average length is estimated
_size = partial(tqdm.format_sizeof, suffix="B")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.prompts.encode", description=__doc__)
    parser.add_argument(
        "--recipe",
        nargs="+",
        default=["pixart"],
        metavar="NAME",
        help=f"recipes of the training run: .toml files, or any of {', '.join(recipe_names())} (default: pixart)",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="prompts encoded at once (default: %(default)s)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print how much there is to encode and to write, then stop"
    )
    parser.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example prompts.text_cache=embeddings")
    set_up_console()
    args = parser.parse_intermixed_args(arguments)
    return run_command(
        lambda: _run(args), stopped="what was written is kept, and the same command continues from there"
    )


def _run(args: argparse.Namespace) -> int:
    recipe = load_recipe(*split_words([*args.recipe, *args.overrides]), check_files=True)
    if not recipe.prompts.text_cache:
        raise RecipeError("no folder is given: add prompts.text_cache=FOLDER, here and to the training run")
    with long_step("the recipe is valid; starting torch and other libraries"):  # wrong recipes need not wait for them
        from accelerate import PartialState

        from training.models.loading import describe_encoder, load_teacher
        from training.models.text_cache.build import build_shards, finish
        from training.prompts import recipe_prompts
    folder = Path(recipe.prompts.text_cache).expanduser()
    state = PartialState(cpu=args.cpu, timeout=timedelta(hours=1))  # fast processes wait for slow ones
    log.setLevel(logging.INFO if state.is_main_process else logging.ERROR)
    with long_step(f"loading {recipe.teacher.path}"):
        backbone = load_teacher(recipe.teacher)
    backbone.text_encoder.to(state.device)
    encoder, masked = describe_encoder(recipe.teacher, backbone), backbone.encode([""]).mask is not None
    with long_step("counting the prompts"):
        missing = _estimate(recipe, encoder, folder, backbone.count_tokens if masked else None)
    if args.dry_run:
        return 0
    state.wait_for_everyone()  # no process writes before all have counted
    total = missing // state.num_processes
    with tqdm(total=total, desc="encode", unit="prompt", disable=not state.is_main_process) as bar:
        build_shards(
            folder,
            recipe_prompts(recipe),
            backbone.encode,
            backbone.count_tokens,
            encoder,
            rank=state.process_index,
            processes=state.num_processes,
            batch_size=args.batch_size,
            progress=bar.update,
        )
    state.wait_for_everyone()
    if state.is_main_process:
        manifest = finish(folder, encoder, masked=masked)
        prompts, size = manifest["prompts"], manifest["bytes"]
        log.info(
            "%s: %d prompts in %d shard(s), %s, %s a prompt (%.1f tokens)",
            *(folder, prompts, len(manifest["shards"]), _size(size), _size(size / prompts)),
            manifest["tokens"] / prompts,
        )
    return 0


def _estimate(recipe: Recipe, encoder: dict[str, Any], folder: Path, count_tokens: CountTokens | None) -> int:
    """The number of prompts to encode. Logs the disk space that they need.

    Without `count_tokens`, every prompt is taken to have the maximal number of tokens.

    Raises:
        ValueError: the disk has too little space.
    """
    from training.models.text_cache.build import keys_in
    from training.models.text_cache.shard import key
    from training.prompts import recipe_prompts

    done = keys_in(folder, encoder)
    cached, total, tokens = len(done), 0, encoder["max_tokens"]
    sample: list[str] = []
    for prompt in recipe_prompts(recipe):
        total += 1
        if (wanted := key(prompt)) in done:
            continue
        done.add(wanted)
        if len(sample) < _SAMPLE:
            sample.append(prompt)
    missing = len(done) - cached
    if not missing:
        log.info("%d prompts, all of them in %s already", total, folder)
        return 0
    if count_tokens is not None:
        tokens = sum(min(length, tokens) for length in count_tokens(sample)) / len(sample)
    each = tokens * encoder["width"] * 2
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    log.info(
        "%d prompts, %d of them not yet in %s; about %.0f tokens or %s each, %s in total (%s free)",
        *(total, missing, folder, tokens, _size(each), _size(each * missing), _size(free)),
    )
    if each * missing > free:
        raise ValueError(
            f"{folder}: about {_size(each * missing)} needed, only {_size(free)} free; choose a folder on a larger disk"
        )
    return missing


if __name__ == "__main__":
    sys.exit(main())
