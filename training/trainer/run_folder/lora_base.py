"""Finds the model that a student's LoRA was trained on."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.config.loras import split_strength
from training.config.sources import exists, find_file, looks_like_hub_id

log = logging.getLogger(__name__)


def find_base(lora: Path, named: str) -> str:
    """The path or hub id of a LoRA's base.

    An exported file names a model of this machine by the last part of its path alone, since paths are private. The
    whole path is in the recipe of the run, which is two folders above its export.

    Args:
        lora: the LoRA's file.
        named: the base's name in it.

    Raises:
        FileNotFoundError: it is not there, and the message says where it was looked for.
    """
    recorded = str(_section(lora, "student").get("init") or _section(lora, "teacher").get("path", ""))
    if recorded and Path(recorded).name == Path(named).name:
        named = recorded
    if exists(find_file(named)):
        log.info("the LoRA's base: %s", find_file(named))
        return named
    if looks_like_hub_id(named):
        return named
    raise FileNotFoundError(
        f"{lora} is a LoRA of {named!r}, and its base is not there: looked for {find_file(named).absolute()}"
        + ("" if recorded else ", and for the run's recipe.toml two folders above the LoRA")
        + "; give its path with --base"
    )


def find_base_loras(lora: Path, named: Sequence[str]) -> tuple[str, ...]:
    """The LoRAs, `path:strength`, that were merged into a LoRA's base, found as the base itself.

    Args:
        lora: the LoRA's file.
        named: their names in it.

    Raises:
        FileNotFoundError: one is not there.
    """
    recorded = tuple(map(str, _section(lora, "teacher").get("loras", ())))
    if [Path(one).name for one in recorded] == [Path(one).name for one in named]:
        named = recorded
    for path, _ in map(split_strength, named):
        if not exists(find_file(path)):
            raise FileNotFoundError(
                f"{lora} was trained on a model with the LoRA {path!r}, which is not there: looked for "
                f"{find_file(path).absolute()}, and in the recipe.toml of the run two folders above the LoRA"
            )
    return tuple(named)


def _section(lora: Path, name: str) -> dict[str, Any]:
    """A section of the recipe of the run whose export this is; {} if there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return dict(tomllib.loads((lora.resolve().parent.parent / "recipe.toml").read_text(encoding="utf-8"))[name])
    return {}
