"""`--dry-run`: checks a run and estimates what it needs, without loading weights or writing files."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from accelerate.utils import DistributedType, parse_flag_from_env

from training.config import Recipe
from training.config.checks import SHAPES_TEACHER
from training.console import long_step
from training.distill.clip_loss import check_clip_files
from training.models.loading import load_network
from training.models.loading.build import without_weights
from training.models.text_cache.manifest import MANIFEST
from training.prompts.source import PromptSource
from training.trainer.build import open_run_prompts, open_teacher
from training.trainer.distributed.accelerator import check_fsdp
from training.trainer.distributed.cuda_speed import use_cuda_settings
from training.trainer.estimate import Estimate, checkpoint_size, estimate, mean_step
from training.trainer.run_folder.checkpoint import checkpoints, iteration_of
from training.trainer.run_folder.describe import hints
from training.trainer.run_folder.resume_check import check_folder

GIB, GB, TERA = 2**30, 1e9, 1e12
SAMPLE = 1000  # prompts to check
_USE_FSDP, _FSDP_VERSION = "ACCELERATE_USE_FSDP", "FSDP_VERSION"  # set by `accelerate launch --use_fsdp`


def dry_run(recipe: Recipe, *, cpu: bool, resume: bool, accept_changes: bool) -> None:
    """Print a report. Models are known by their configs and the headers of their files: no weights are read.

    Raises:
        RecipeError: the run folder holds another run, or one that this recipe cannot continue; or FSDP is of version 1,
            or used with 8-bit moments.
        FileNotFoundError, ValueError: the run would fail with this error. The recipe is printed before. The text cache
            is checked last, since making it may take hours, and the report helps to decide on that.
    """
    start = start_section(recipe, resume=resume, accept_changes=accept_changes)
    print(recipe.to_toml(), flush=True)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    if uses_fsdp(device):
        check_fsdp(int(os.environ.get(_FSDP_VERSION, "1")), recipe)
    cache = recipe.prompts.text_cache
    t5_is_needed = not (cache and (Path(cache).expanduser() / MANIFEST).is_file())
    with long_step("reading the models' descriptions", at_once=False), without_weights(t5_is_needed=t5_is_needed):
        backbone, levels = open_teacher(
            recipe.model_copy(update={"prompts": recipe.prompts.model_copy(update={"text_cache": ""})})
        )
        if recipe.student.init:
            load_network(recipe.student.init, backbone)
    check_clip_files(recipe.clip)
    source = open_run_prompts(recipe, backbone)
    drawn, counts = _first_epoch(source)
    if cache and backbone.family.leaves_out_text:
        backbone = replace(backbone, text_encoder=None)  # a run does not load it then
    with long_step("estimating memory and time", at_once=False):
        found = estimate(recipe, backbone, levels, processes=processes, cuda=device.type == "cuda")
    print("The recipe, the teacher's config and the prompts are valid.\n")
    for section in (
        start,
        *(f"hint: {hint}" for hint in hints(recipe, backbone.prediction_type)),
        prompts(recipe, source, drawn, counts),
        parameters(found),
        memory(found, device, processes),
        duration(recipe, found, device),
        files(recipe, found),
    ):
        print(section + "\n")
    if cache:
        with without_weights(t5_is_needed=False):
            open_run_prompts(recipe, open_teacher(recipe)[0])
    print("dry run: nothing was written", flush=True)


def start_section(recipe: Recipe, *, resume: bool, accept_changes: bool) -> str:
    """Whether the run starts or resumes, and where. Raises RecipeError, as `check_folder` does."""
    folder, total = Path(recipe.output.folder), recipe.loop.iterations
    changes = check_folder(folder, recipe, resume=resume, accept_changes=accept_changes)
    saved = checkpoints(folder / "checkpoints")
    done = iteration_of(saved[-1]) if saved else 0
    rows = [("starts", f"from the beginning, for {total} iterations")]
    if saved:
        rows = [("resumes", f"at iteration {done} of {total}, from {saved[-1]}")]
    return _table("the run", rows + _student(recipe) + [("changed", line) for line in changes])


def _student(recipe: Recipe) -> list[tuple[str, str]]:
    """How a few-step student is sampled and trained; nothing for a student of one step."""
    student = recipe.student
    if (count := len(student.steps)) == 1:
        return []
    weights = student.step_weights or (1.0,) * count
    shares = ", ".join(f"{100 * weight / sum(weights):.0f} %" for weight in weights)
    gradient = "without gradient" if student.step_gradient == "drawn" else "with gradient"
    return [
        (
            "student",
            f"{count} steps, at timesteps {', '.join(map(str, student.steps))}; drawn in {shares} of the iterations",
        ),
        ("", f"{mean_step(recipe):.3g} earlier steps on average, {gradient}; transition: {student.transition}"),
    ]


def _first_epoch(source: PromptSource) -> tuple[list[str], dict[str, int]]:
    """The first `SAMPLE` prompts, or all if the source has fewer, and the counts of the source."""
    drawn: list[str] = []
    while len(drawn) < SAMPLE:
        counts = dict(source.counts)
        found = source.take(1)
        if source.counts["epochs"]:
            return drawn, counts
        drawn += found
    return drawn, source.counts


def prompts(recipe: Recipe, source: PromptSource, drawn: list[str], counts: dict[str, int]) -> str:
    """How the source is read, and about the first prompts."""
    different = len(set(drawn))
    treatment = "cut" if recipe.prompts.over_long == "cut" else "left out"
    rows = [
        *(("from", line) for line in source.describe()),
        ("such as", repr(drawn[0] if len(drawn[0]) <= 90 else f"{drawn[0][:90]} ...")),
        ("of the first", f"{len(drawn)}: {different} different, {counts['over-long']} too long and {treatment}"),
        ("left out", f"{counts['empty']} without text, as far as read"),
    ]
    if different < recipe.loop.batch_size and len(drawn) < SAMPLE:
        batch = recipe.loop.batch_size
        rows.append(("few", f"the source has {different}, a batch needs {batch}: prompts are repeated"))
    return _table("prompts", rows)


def parameters(found: Estimate) -> str:
    """Number of parameters by network."""
    rows = [(name, f"{count / 1e6:,.1f} M trained") for name, count in found.trained.items()]
    rows += [(name, f"{count / 1e6:,.1f} M frozen") for name, count in found.frozen.items()]
    return _table("parameters", rows)


def memory(found: Estimate, device: torch.device, processes: int) -> str:
    """Memory by part, and whether the device has enough."""
    rows = [(part, f"{size / GIB:.2f} GiB") for part, size in found.memory.items()]
    if device.type == "cuda":
        name, size = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    else:
        name, size = "this machine", psutil.virtual_memory().total // processes
    rows.append(("total", f"{found.total / GIB:.2f} GiB, of {size / GIB:.1f} GiB of {name}"))
    rows.append(("not counted", "Python and torch themselves"))
    if uses_fsdp(device):
        rows.append(("", "that FSDP divides weights, gradients and moments among the processes, all of them in fp32"))
    if found.total > 0.95 * size:
        small_moments = "" if uses_fsdp(device) else "loop.optimizer=adamw8bit, "  # which FSDP refuses
        remedy = f"loop.gradient_checkpointing=true, {small_moments}student.train=lora"
        rows.append(("too much", f"try a smaller loop.micro_batch, {remedy}, or a recipe of 24 or 12 GB"))
    return _table(f"memory of each of {processes} process(es), estimated", rows)


def duration(recipe: Recipe, found: Estimate, device: torch.device) -> str:
    """Lower limit of the time of an iteration."""
    dtype = torch.bfloat16 if recipe.loop.precision == "bf16" else torch.float32
    kind = DistributedType.FSDP if uses_fsdp(device) else DistributedType.NO
    settings = use_cuda_settings(recipe, device, kind)  # before the rate is measured
    rate = matmul_rate(device, dtype)
    least = found.flops / rate

    whole = least * recipe.loop.iterations
    # measured in benchmarks/train_step.py, on CPUs only
    low, high = (3, 6) if recipe.teacher.path == SHAPES_TEACHER else (2, 3)
    in_practice = f"{low} to {high} times that on a CPU: {_duration(low * whole, high * whole)} for the run"
    if device.type == "cuda":
        in_practice = "longer; how much is not known before it runs: the progress bar shows it after some iterations"
    rows = [
        ("operations", f"{_digits(found.flops / TERA)} TFLOP per iteration and process"),
        ("measured here", f"{rate / TERA:.3g} TFLOP/s of matrix products in {str(dtype).removeprefix('torch.')}"),
        ("at that rate", f"{least:.3g} s per iteration, {_duration(whole)} for the run"),
        ("in practice", in_practice),
    ]
    if device.type == "cuda":
        rows.insert(1, ("settings", settings))
    return _table("time, estimated", rows)


def uses_fsdp(device: torch.device) -> bool:
    """Whether the run would use FSDP, by accelerate's own rule; a dry run does not join the other processes to ask."""
    return device.type == "cuda" and os.environ.get("WORLD_SIZE", "1") != "1" and parse_flag_from_env(_USE_FSDP)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of large matrix products: the best rate in about a second of measuring."""
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + 1
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - start) / 10)
    return 2 * size**3 / best


def files(recipe: Recipe, found: Estimate) -> str:
    """Files that the run would write."""
    output, folder = recipe.output, Path(recipe.output.folder)
    state_size = checkpoint_size(found.memory)
    kept = output.keep_last + output.keep_best + 1
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    kinds = f"the last {output.keep_last}" + (", the best," if output.keep_best else "") + " and one being written"
    rows = [
        ("recipe.toml", "every setting, as above"),
        ("environment.json", "versions and device"),
        ("metrics.jsonl", f"a line every {output.log_every} iterations"),
        ("checkpoints/", f"{kinds}: {kept} x {state_size / GB:.2f} GB of {free / GB:.1f} GB free"),
        ("export/student.safetensors", "the student, for PG-SB Loader"),
        ("README.txt", "what all of this is"),
    ]
    if output.sample_every:
        rows[-1] = ("README.txt, report.html", "what all of this is; curves, warnings and grids")
        rows.insert(3, ("samples/", f"student against teacher, every {output.sample_every} iterations"))
    if recipe.evaluate.every:
        rows.insert(3, ("evaluation/", evaluation(recipe)))
    if output.background_save:
        rows.append(("while saving", f"{state_size / GIB:.2f} GiB of the machine's memory, beside the training"))
    if kept * state_size > free:
        rows.append(("too much", "the disk is too small; try a smaller output.keep_last, or another output.folder"))
    return _table(f"files below {folder}", rows)


def evaluation(recipe: Recipe) -> str:
    """What is measured on a schedule."""
    section = recipe.evaluation
    what = [name for name in section.metrics if name != "removal"]
    parts = [f"{', '.join(what)} of up to {section.images} images"] if what else []
    if "removal" in section.metrics:
        judged = f"judge {section.judge}, pairs {section.pairs}, {section.count} images of each"
        parts.append(f"removal by NASA at alpha {section.alpha:g} ({judged}, without it and with it)")
    return f"every {section.every} iterations and at the end: {'; '.join(parts)}; its memory and time are not counted"


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:{width}}  {text}" for name, text in rows)])


def _duration(*seconds: float) -> str:
    """One time, or a range, in the largest unit of which the first has at least two."""
    units = ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
    size, name = next((unit for unit in units if seconds[0] >= 2 * unit[0]), units[-1])
    return f"{' to '.join(_digits(each / size) for each in seconds)} {name}"


def _digits(number: float) -> str:
    """Two significant digits; more only in front of the decimal point."""
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"
