"""Checks of a recipe as a whole: settings that contradict each other, and missing files and libraries.

Each check yields the settings concerned, and one line with the value, what is expected, and how to correct it.
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

from training.config.clip_models import Problem, unknown_clip_models
from training.config.evaluation import Evaluate
from training.config.loras import split_strength
from training.config.recipe import Recipe
from training.config.sources import ROOT, WORLDS, exists, find_file, looks_like_hub_id, package_versions

MOST_STEPS = 16  # a single timestep this small is a number of steps, given by mistake
SHAPES_TEACHER = "models/snoopi-shapes-teacher.safetensors"
BUNDLED_TEACHERS = ("models/snoopi-avatars-teacher.safetensors", SHAPES_TEACHER)
_PROMPT_FILES = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")


def conflicts(recipe: Recipe) -> Iterator[Problem]:
    """Settings that contradict each other."""
    loop, student = recipe.loop, recipe.student
    for low, high in (("loop.t_min", "loop.t_max"), ("guidance.kappa_min", "guidance.kappa_max")):
        least, most = attrgetter(low, high)(recipe)
        if most < least:
            yield (low, high), f"{high} {most} is below {low} {least}"
    yield from _lora_timesteps(recipe)
    if loop.batch_size % min(loop.micro_batch or loop.batch_size, loop.batch_size):
        yield (
            ("loop.batch_size", "loop.micro_batch"),
            f"loop.batch_size {loop.batch_size} is not a multiple of loop.micro_batch {loop.micro_batch}; "
            f"the next smaller divisor is {_divisor(loop.batch_size, loop.micro_batch)}",
        )
    yield from _few_steps(recipe)
    if recipe.guidance.decoupled and student.steps[-1] <= loop.t_min:
        yield (
            ("guidance.decoupled", "student.timesteps", "loop.t_min"),
            f"guidance.decoupled takes guidance at timesteps from loop.t_min {loop.t_min} up to the student's, but the "
            f"student has a step at {student.steps[-1]}; give a smaller loop.t_min, or guidance.decoupled=false",
        )
    if recipe.evaluate.every:
        yield from _evaluation(recipe.evaluation)
    if student.nasa_alpha_max > 0 and not any(text.strip() for text in student.nasa_negatives):
        yield (
            ("student.nasa_alpha_max", "student.nasa_negatives"),
            f"student.nasa_alpha_max {student.nasa_alpha_max} needs negative prompts, but "
            "student.nasa_negatives has none; give at least one, or student.nasa_alpha_max=0",
        )
    if student.nasa_alpha_max > 0 and loop.compile:
        yield (
            ("student.nasa_alpha_max", "loop.compile"),
            "loop.compile with student.nasa_alpha_max would compile in every iteration, since alpha is random; "
            "give loop.compile=false",
        )


def _lora_timesteps(recipe: Recipe) -> Iterator[Problem]:
    """The loss takes the LoRA teacher's score at loop's timesteps, so it must be trained at all of them."""
    loop, lora = recipe.loop, recipe.lora
    for name, limit, needed, outside in (
        ("t_min", lora.t_min, loop.t_min, lora.t_min > loop.t_min),
        ("t_max", lora.t_max, loop.t_max, lora.t_max is not None and lora.t_max < loop.t_max),
    ):
        if outside:
            yield (
                (f"lora.{name}", f"loop.{name}"),
                f"lora.{name} {limit} leaves out timesteps of the range {loop.t_min} to {loop.t_max} at which the loss "
                f"compares the two teachers, so the LoRA teacher would be asked where it is never trained; give "
                f"lora.{name}={needed}, or another loop.{name}",
            )


def _few_steps(recipe: Recipe) -> Iterator[Problem]:
    student, count = recipe.student, len(recipe.student.steps)
    given = "timestep" in student.model_fields_set
    if student.timesteps and given and student.timestep != student.timesteps[0]:
        first = student.timesteps[0]
        yield (
            ("student.timestep", "student.timesteps"),
            f"student.timestep {student.timestep} is not where student.timesteps {list(student.timesteps)} begins; "
            f"give student.timestep={first} with it, or leave it out, or give timesteps that begin at "
            f"{student.timestep}",
        )
    if len(student.timesteps) == 1 and student.timesteps[0] <= MOST_STEPS:
        number = student.timesteps[0]
        yield (
            ("student.timesteps",),
            f"student.timesteps {number}: expected the timesteps themselves, where the noise is, not how many; for "
            "four steps give student.timesteps=999,749,499,249",
        )
    weights = student.step_weights
    if weights and (len(weights) != count or sum(weights) == 0):
        yield (
            ("student.step_weights", "student.timesteps"),
            f"student.step_weights {list(weights)}: expected {count} number(s), one for each timestep of "
            f"{list(student.steps)}, that are not all 0",
        )
    elif weights and (weights[-1] == 0 or (0 in weights and student.step_gradient == "drawn")):
        t = student.steps[-1 if weights[-1] == 0 else weights.index(0)]
        yield (
            ("student.step_weights", "student.step_gradient"),
            f"student.step_weights {list(weights)}: the step at timestep {t} would never be trained; give it a weight "
            "above 0, or, unless it is the last, student.step_gradient=all, which trains it through the later steps",
        )
    if recipe.lora.batches == "fresh" and recipe.lora.updates == 1:
        yield (
            ("lora.batches", "lora.updates"),
            "lora.batches=fresh concerns the second and later updates, but lora.updates is 1; give lora.updates=5 (as "
            "DMD2), or leave lora.batches out",
        )


def _evaluation(section: Evaluate) -> Iterator[Problem]:
    if not section.reference and (compared := {"fid", "prc"}.intersection(section.metrics)):
        yield (
            ("evaluate.metrics", "evaluate.reference"),
            f"evaluate.metrics {', '.join(sorted(compared))} needs images to compare with: give evaluate.reference a "
            "folder of them, or an .npz with their statistics (python -m training.evaluate score --save-reference)",
        )
    if "removal" not in section.metrics:
        return
    if section.alpha is None:
        yield (
            ("evaluate.alpha", "evaluate.metrics"),
            "evaluate.metrics removal needs a strength of NASA, and the recipe recommends none "
            "(output.recommended_alpha); give evaluate.alpha, such as 0.3, or other evaluate.metrics",
        )
    if section.judge == "people":
        yield (
            ("evaluate.judge",),
            "evaluate.judge people cannot judge during a training; give clip, a small world's name, or "
            "package.module:function",
        )


def missing(recipe: Recipe) -> Iterator[Problem]:
    """Files and libraries that the recipe names and this machine lacks. Loads nothing, and contacts no hub."""
    yield from _missing_models(recipe)
    for source, _ in recipe.prompts.sources:
        yield from _missing_source(source)
    if recipe.evaluate.every:
        yield from _missing_of_evaluation(recipe.evaluation)
    yield from _missing_libraries(recipe)
    folder = Path(recipe.output.folder)
    taken = next((path for path in (folder, *folder.parents) if exists(path) and not path.is_dir()), None)
    if taken or "\0" in recipe.output.folder:
        yield ("output.folder",), f"output.folder {recipe.output.folder!r}: {str(taken)!r} is a file, not a folder"
    processes, batch = int(os.environ.get("WORLD_SIZE", "1")), recipe.loop.batch_size
    if batch % processes:
        yield (
            ("loop.batch_size",),
            f"loop.batch_size {batch} cannot be split evenly over {processes} processes; "
            f"give a multiple of {processes}, such as {(batch // processes + 1) * processes}",
        )


def _missing_models(recipe: Recipe) -> Iterator[Problem]:
    for key, name in (
        ("teacher.path", recipe.teacher.path),
        ("teacher.text_encoder", recipe.teacher.text_encoder),
        ("teacher.vae", recipe.teacher.vae),
        ("student.init", recipe.student.init),
        ("clip.decoder", recipe.clip.decoder if recipe.clip.weight > 0 else ""),
    ):
        required = key == "teacher.path"
        if (name or required) and not (looks_like_hub_id(name) or (name and exists(find_file(name)))):
            if name in BUNDLED_TEACHERS:
                yield (
                    (key,),
                    f"{key}: {name} is missing. It is part of the git repository, but not of the package that "
                    f"ComfyUI's registry installs: copy it from the repository into {ROOT / 'models'}, or train from "
                    "another teacher (--recipe sd15, or teacher.path=...)",
                )
                continue
            kinds = "a diffusers folder, a hub id such as owner/name"
            if key in ("teacher.path", "student.init"):
                kinds += ", or a single .safetensors file"
            yield (key,), f"{key}: nothing at {name!r}; expected {kinds}{_path_hint(name)}"

    for name, _ in map(split_strength, recipe.teacher.loras):
        if not (exists(find_file(name)) and find_file(name).is_file()):
            yield ("teacher.loras",), f"teacher.loras: no file at {name!r}{_path_hint(name)}"


def _missing_source(source: str, key: str = "prompts.source") -> Iterator[Problem]:
    if source in WORLDS or any(mark in source for mark in "*?["):
        return
    file, _, weight = source.rpartition(":")
    if Path(file).suffix in _PROMPT_FILES and not exists(find_file(source)):
        yield (
            (key,),
            f"{key}: {weight!r} in {source!r} is not a weight; expected a number above 0 behind the colon, as "
            f"in '{file}:0.5', or no colon",
        )
        return
    named_file = Path(source).suffix in _PROMPT_FILES or source.startswith((".", "/", "~"))
    if not source.strip() or (named_file and not exists(find_file(source))):
        worlds = " or ".join(f'"{name}"' for name in WORLDS)
        yield (
            (key,),
            f"{key}: nothing at {source!r}; expected {worlds}, a file ({', '.join(_PROMPT_FILES)}), a "
            f"folder or glob of them, or a hub data set{_path_hint(source)}",
        )


def _missing_of_evaluation(section: Evaluate) -> Iterator[Problem]:
    if section.prompts and {"clip", "fid", "prc"}.intersection(section.metrics):
        yield from _missing_source(section.prompts, "evaluate.prompts")
    for name in ("reference", "inception_weights"):
        path = getattr(section, name)
        if path and not exists(find_file(path)):
            yield (f"evaluate.{name}",), f"evaluate.{name}: nothing at {path!r}{_path_hint(path)}"


def _missing_libraries(recipe: Recipe) -> Iterator[Problem]:
    if recipe.loop.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        yield (
            ("loop.optimizer",),
            "loop.optimizer adamw8bit needs bitsandbytes, which is not installed: pip install bitsandbytes, "
            "or loop.optimizer=adamw (6 bytes more for each trained weight)",
        )
    compilers = (os.environ.get("CXX", "g++"), "c++", "clang++", "cl")
    if recipe.loop.compile and not any(map(shutil.which, compilers)):
        yield (
            ("loop.compile",),
            "loop.compile needs a C++ compiler, but found none (g++, clang++, or the one in CXX): install one "
            "(on Debian: apt-get install g++), or give loop.compile=false",
        )
    for tracker in recipe.output.trackers:
        if not package_versions(tracker):
            yield (
                ("output.trackers",),
                f"output.trackers {tracker} is not installed: pip install {tracker}, or output.trackers=[]",
            )
    yield from unknown_clip_models(recipe)


def _path_hint(name: str) -> str:
    """A hint: the part of a path that exists, and the most similar name in it."""
    path = find_file(name).absolute()
    folder = next((parent for parent in path.parents if exists(parent)), None)
    if not name or folder is None or not os.access(folder, os.R_OK | os.X_OK) or not folder.is_dir():
        return ""
    child = path.relative_to(folder).parts[0]
    near = difflib.get_close_matches(child, sorted(entry.name for entry in folder.iterdir()), n=1)
    return f". {folder} exists, " + (f"and contains {near[0]!r}" if near else f"but does not contain {child!r}")


def _divisor(number: int, at_most: int) -> int:
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)
