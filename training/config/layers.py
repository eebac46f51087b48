"""Loads recipes: shipped names or TOML files, layered from left to right, then `key=value` overrides.

A file may extend others with `extends = "sd15"` (a shipped name, a path relative to its folder, or a list of these);
its own settings win. The value "unset" removes a setting of a lower layer. All problems are reported at once. The
recipe that a run saves is fully resolved and extends nothing.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from training.config.checks import conflicts, missing
from training.config.clip_models import unknown_clip_tags
from training.config.errors import RecipeError
from training.config.recipe import Recipe, with_older_defaults
from training.config.recipe_file import escaped_paths, read_recipe_file
from training.config.settings import Student, usual_batches
from training.config.sources import ROOT

RECIPES = ROOT / "training" / "recipes"
UNSET = "unset"
REQUIRED = {  # setting -> how to give it
    "teacher.path": "name a recipe with a teacher first (--recipe sd15 swiftbrush), or give teacher.path=",
    "prompts.source": "give prompts.source= a file with one prompt a line, a table (.csv, .jsonl, .parquet), a folder "
    'or glob of them, a hub data set, "shapes" or "avatars" (small worlds). The paper uses captions of JourneyDB and '
    "LAION",
}
Tree = dict[str, Any]
_OVERRIDE = re.compile(r"[\w.]*=")


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into names of recipes and overrides (words of the form key=value)."""
    return [word for word in words if not _OVERRIDE.match(word)], [word for word in words if _OVERRIDE.match(word)]


def load_recipe(recipes: str | Sequence[str], overrides: Sequence[str] = (), *, check_files: bool = False) -> Recipe:
    """Load recipes by shipped name or TOML file, later ones over earlier ones, then apply overrides.

    Without output.folder, the run folder is named after the recipes: runs/sd21-swiftbrush.

    Args:
        overrides: such as `guidance.kappa_max=3`.
        check_files: also check that the files and libraries it names are on this machine.

    Raises:
        RecipeError: unknown recipes, recipes that extend each other in a circle, invalid TOML, unknown keys (with the
            most similar known one), values out of range or in conflict, and with `check_files`, missing files.
    """
    recipes = [recipes] if isinstance(recipes, str) else list(recipes)
    tree: Tree = {}
    problems: list[str] = []
    for name in recipes:
        _add_layer(tree, _read(name, None, (), problems))
    if any(override.startswith("student.timesteps=") for override in overrides):
        _forget_measured(tree)
    for override in overrides:
        _apply_override(tree, override, problems)
    tree = _without_unset(tree)
    for section in ("teacher", "prompts", "output"):
        tree.setdefault(section, {})
    if isinstance(tree["output"], dict):
        tree["output"].setdefault("folder", "runs/" + "-".join(Path(name).stem for name in recipes))
    incomplete = bool(problems)
    recipe = _validate(tree, problems, check_files)
    if incomplete:  # required settings may be in the part that could not be read
        problems = [problem for problem in problems if " is required: " not in problem]
    if problems:
        several = f"{len(problems)} problem(s)\n" + "\n".join(f"  - {problem}" for problem in problems)
        raise RecipeError(f"recipe {' '.join(recipes)}: {several}")
    return recipe


def _read(name: str, parent: Path | None, below: tuple[Path, ...], problems: list[str]) -> Tree:
    """The settings of one recipe over those it extends. `below`: the files being read, outermost first."""
    path = Path(name)
    if path.suffix != ".toml":
        path = RECIPES / f"{name}.toml"
    elif parent is not None:
        path = parent.parent / path
    source = f"{parent.name} extends {name!r}" if parent else f"recipe {name!r}"
    try:
        path = path.resolve()
        if path in below:
            chain = " -> ".join(one.name for one in (*below[below.index(path) :], path))
            problems.append(f"recipes extend each other in a circle: {chain}")
            return {}
        tree = _without_dependent_defaults(read_recipe_file(path))
    except (FileNotFoundError, NotADirectoryError):
        if "." in name and name in _settings():
            problems.append(f"{name} is a setting without a value: give {name}=VALUE")
            return {}
        near = _closest(name, recipe_names())
        hint = f"did you mean {near}? " if near else ""
        problems.append(
            f"{source}: no such recipe; {hint}shipped: {', '.join(recipe_names())}; or a path to a .toml file; "
            "settings are key=value"
        )
        return {}
    except OSError as error:
        problems.append(f"{source} cannot be read: {error.strerror}")
        return {}
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problems.append(f"{path.name} is not valid TOML: {error}")
        return {}
    except ValueError as error:
        problems.append(f"{path.name}: {error}")
        return {}
    bases = tree.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        problems.append(f"{path.name}: extends: expected a recipe's name, or a list of names (got {_short(bases)})")
        bases = []
    under: Tree = {}
    for base in bases:
        _add_layer(under, _read(base, path, (*below, path), problems))
    _add_layer(under, tree)
    return under


def _closest(name: str, names: Sequence[str]) -> str | None:
    """The most similar name; of equally similar ones, the one that begins most alike (sd16: sd15, not sd21)."""
    near = difflib.get_close_matches(name, names, n=5)

    def likeness(one: str) -> tuple[float, int]:
        first_difference = next((n for n, (a, b) in enumerate(zip(one, name, strict=False)) if a != b), len(one))
        return difflib.SequenceMatcher(None, one, name).ratio(), first_difference

    return max(near, key=likeness, default=None)


def _add_layer(under: Tree, over: Tree) -> None:
    student = over.get("student")
    if isinstance(student, dict) and "timesteps" in student:
        _forget_measured(under)
    _merge(under, over)


def _forget_measured(under: Tree) -> None:
    """Drop the alpha that was measured, and the title that was given, for students of other steps."""
    if isinstance(under.get("output"), dict):
        for name in ("recommended_alpha", "title"):
            under["output"].pop(name, None)


def _merge(under: Tree, over: Mapping[str, Any]) -> None:
    """Update `under` with `over`, section by section; lists are replaced, not joined."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _merge(under[key], value)
        else:
            under[key] = value


def _without_dependent_defaults(tree: Tree) -> Tree:
    """A recipe that a run saved has every setting, given or not. These two are taken as the default where they have it,
    also over other recipes, but not as if they had been given: student.timestep, which checks.py would refuse beside
    other timesteps, and lora.batches, whose default depends on lora.updates."""
    if not tree.keys() >= Recipe.model_fields.keys() - {"evaluate"}:  # older versions had no such section
        return tree
    tree = with_older_defaults(tree)
    student, lora = tree["student"], tree["lora"]
    if isinstance(student, dict) and student.get("timestep") == Student.model_fields["timestep"].default:
        student = student | {"timestep": UNSET}
    if isinstance(lora, dict) and lora["batches"] == usual_batches(lora.get("updates")):
        lora = lora | {"batches": UNSET}
    return tree | {"student": student, "lora": lora}


def _without_unset(tree: Tree) -> Tree:
    return {
        key: _without_unset(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value != UNSET
    }


def _apply_override(tree: Tree, override: str, problems: list[str]) -> None:
    key, equals, text = override.partition("=")
    *sections, last = parts = key.strip().split(".")
    if not equals or not all(parts):
        problems.append(f"override {override!r}: expected key=value, for example guidance.kappa_max=3")
        return
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            problems.append(f"override {override!r}: {section} is a value, not a section")
            return
    tree[last] = _value(text, is_text=_is_text(_settings().get(key.strip()), text))


def _is_text(kind: Any, text: str) -> bool:
    """Whether a setting of this type is text as typed; some can also be a list in brackets."""
    return kind is str or (str in get_args(kind) and not text.startswith("["))


def _value(text: str, *, is_text: bool) -> Any:
    """Parse a TOML value. Bare words and paths need no quotes; text settings stay as typed, even numbers."""
    if is_text and re.fullmatch(r'"[A-Za-z]:\\[^"]*"', text):
        return text[1:-1]  # a Windows path in a shell's quotes, where a backslash has no meaning
    if is_text and not text.startswith(("'", '"')):
        return text
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _validate(tree: Tree, problems: list[str], check_files: bool) -> Recipe:
    """Validate the recipe, and add to `problems`. Invalid settings get defaults, so that the others are checked too."""
    escaped = dict(escaped_paths(tree))
    problems += escaped.values()
    wrong = set(escaped)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        for problem in error.errors():
            problems += _explain(problem)
            *sections, last = problem["loc"][:2]
            (tree[sections[0]] if sections else tree).pop(last, None)
            wrong.add(".".join(map(str, problem["loc"][:2])))
        for key in REQUIRED:
            section, _, name = key.partition(".")
            tree.setdefault(section, {}).setdefault(name, "")
        recipe = Recipe.model_validate(tree)  # with defaults for invalid settings
    for check in (conflicts, missing, unknown_clip_tags) if check_files else (conflicts,):
        if check is unknown_clip_tags and problems:
            break  # it takes seconds, which all other problems need not wait for
        for keys, text in check(recipe):
            if wrong.isdisjoint({*keys, *(key.partition(".")[0] for key in keys)}):
                problems.append(text)
    return recipe


def _explain(problem: Any) -> list[str]:
    key, kind = ".".join(map(str, problem["loc"])), problem["type"]
    if kind == "extra_forbidden":
        return [f"unknown key {_short(key)}; {_nearest(key)}"]
    if kind == "missing":
        return [f"{key} is required: {REQUIRED[key]}"]
    if kind == "model_type":
        return [f"{key}: expected a section, [{key}] with settings below it (got {_short(problem['input'])})"]
    return [f"{key}: {problem['msg'].removeprefix('Value error, ')} (got {_short(problem['input'])})"]


def _nearest(key: str) -> str:
    known = list(_settings())
    section, _, leaf = key.rpartition(".")
    alike = [k for k in known if "." in k] if section else known
    leaves = {k: k.rpartition(".")[2] for k in known}
    close = difflib.get_close_matches(leaf, leaves.values(), n=1, cutoff=0.7)
    near = [k for k in known if leaves[k] == leaf] or difflib.get_close_matches(key, alike, n=1, cutoff=0.6)
    near = near or [k for k in known if leaves[k] in close]
    if near:
        return f"did you mean {' or '.join(near)}?"
    siblings = [k for k in known if k.rpartition(".")[0] == section] or list(Recipe.model_fields)
    return f"known here: {', '.join(siblings)}"


def _settings(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, Any]:
    """Types of all sections and settings, by key."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        found[prefix + name] = info.annotation
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found |= _settings(info.annotation, f"{prefix}{name}.")
    return found


def _short(value: Any) -> str:
    """A value for an error message, shortened."""
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:60]} ... {shown[-30:]}"
