"""Parse the arguments of our commands without running them.

A module runs until argparse has accepted the arguments; their recipe is resolved too. For a process of its own
(processes.py), since benchmarks/ and tests/support/ have modules of the same names.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from processes import set_up

ROOT = Path(__file__).resolve().parents[2]


class Accepted(Exception):
    pass


def stopping(parse: Callable[..., argparse.Namespace]) -> Callable[..., argparse.Namespace]:
    def wrapper(self: argparse.ArgumentParser, args: list[str] | None = None, *more: Any) -> argparse.Namespace:
        raise Accepted(parse(self, args, *more))

    return wrapper


def problem(words: list[str]) -> str:
    """The error of argparse or of the recipe for `words`; "" if there is none."""
    output = io.StringIO()
    patches = [
        mock.patch.object(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))
        for name in ("parse_args", "parse_intermixed_args")
    ]
    module = words[0] == "-m"
    sys.argv = words[1:] if module else words
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stderr(output))
            stack.enter_context(contextlib.redirect_stdout(output))
            for patch in patches:
                stack.enter_context(patch)
            if module:
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    except SystemExit as ended:
        return "" if ended.code == 0 else output.getvalue()  # 0: --help
    except Accepted as accepted:
        return _recipe_problem(accepted.args[0])
    return f"it ran to its end without reading its arguments:\n{output.getvalue()}"


def _recipe_problem(namespace: argparse.Namespace) -> str:
    from training.config import RecipeError, load_recipe, split_words

    if not hasattr(namespace, "overrides") or getattr(namespace, "resume", None):
        return ""
    recipes = getattr(namespace, "recipe", [])
    recipes = [recipes] if isinstance(recipes, str) else recipes
    names, overrides = split_words([*recipes, *namespace.overrides])
    try:
        load_recipe(names or "shapes", overrides)
    except RecipeError as error:
        return str(error)
    return ""


def run(log: Path, lines: list[list[str]], found: Path) -> None:
    """In a new process: write the error of each command line, or "", to `found`, as a JSON list.

    lines: without "python".
    """
    set_up(log, {})
    os.chdir(ROOT)
    sys.path[0:0] = [str(ROOT), str(ROOT / "benchmarks")]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(ROOT / "tests" / "support")):
            del sys.modules[name]
    found.write_text(json.dumps([problem(words) for words in lines]), encoding="utf-8")
