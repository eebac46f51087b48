"""Finds the model that a student's LoRA was trained on."""

from __future__ import annotations

import logging
import tomllib
from contextlib import suppress
from pathlib import Path

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
    recorded = _in_recipe(lora)
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


def _in_recipe(lora: Path) -> str:
    """The base in the recipe of the run whose export this is; "" if there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        recipe = tomllib.loads((lora.resolve().parent.parent / "recipe.toml").read_text(encoding="utf-8"))
        return str(recipe.get("student", {}).get("init") or recipe["teacher"]["path"])
    return ""
