"""Measures what only a GPU can tell about training, in one call of at most eight minutes, and prints one table.

    python benchmarks/train_gpu.py                # on a GPU; also writes out/train-gpu.md
    python benchmarks/train_gpu.py --dry-run      # the same code with tiny networks on a CPU: no figure means anything

Full-size networks with random weights, from their configs alone: the settings of CUDA on Stable Diffusion 1.5 (speed,
memory, how far a first iteration is from full fp32), what a checkpoint costs, and every shipped recipe for a card: the
allocator's peak beside the dry run's estimate, seconds an iteration. Text is counted as cached. What does not fit into
the time is named. `train_step.py --device cuda` compares our step with a plain one.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests" / "support")]  # the tests have the descriptions of the published networks

import torch  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from diffusers import AutoencoderTiny  # noqa: E402
from full_size_folders import write_description  # noqa: E402
from published import save_folder  # noqa: E402
from random_model import PROMPTS, write_clip  # noqa: E402
from random_teacher import build_random, describe_teacher  # noqa: E402
from tiny_clip import write_tiny_clip  # noqa: E402

from training.config import Recipe, load_recipe, recipe_names  # noqa: E402
from training.distill.rng import draw  # noqa: E402
from training.trainer.estimate import estimate  # noqa: E402
from training.trainer.trainer import Trainer  # noqa: E402

GIB = 2**30
KINDS = ("sd15", "sdxl", "pixart", "sd21")  # in this order, since sd21's network is nearly sd15's
SETTINGS: dict[str, dict[str, Any]] = {  # of Stable Diffusion 1.5; the first is what the others are compared with
    "fp32": {"precision": "no", "tf32": False},
    "fp32, loop.tf32": {"precision": "no"},
    "bf16": {},
    "bf16, without loop.channels_last": {"channels_last": False},
    "bf16, without loop.cudnn_benchmark": {"cudnn_benchmark": False},
    "bf16, loop.compile": {"compile": True},
}
HEAD = "| what | s / iteration | images / s | peak, GiB | estimate, GiB | peak / estimate | remarks |"


@dataclass(kw_only=True)
class Run:
    """One call. `row` prints a row of the table as soon as it is known."""

    folder: Path
    out: Path
    dry: bool
    end: float
    lines: list[str] = field(default_factory=list)

    @property
    def times(self) -> int:
        """How often an iteration is timed."""
        return 1 if self.dry else 2

    def row(self, *cells: str) -> None:
        self.line("| " + " | ".join([*cells, *[""] * (7 - len(cells))][:7]) + " |")

    def line(self, text: str) -> None:
        print(text, flush=True)
        self.lines.append(text)
        self.out.write_text("\n".join(self.lines) + "\n", encoding="utf-8")

    def measure(self, name: str, action: Callable[[], None], seconds: float = 30) -> None:
        """Run one measurement, which may take `seconds`, on an empty device; an error is a row, since the others may
        still work."""
        if time.monotonic() + seconds > self.end:
            self.row(name, *[""] * 5, "left out: too little time is left")
            return
        try:
            action()
        except Exception as error:
            self.row(name, *[""] * 5, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}")
        AcceleratorState._reset_state(reset_partial_state=True)
        self.forget()

    def build(self, recipe: Recipe) -> Trainer:
        """The recipe's trainer; what its making took at its peak does not count."""
        trainer = build_random(recipe, cpu=self.dry)
        self.forget()
        return trainer

    def forget(self) -> None:
        gc.collect()
        if not self.dry:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def recipe(self, name: str, loop: dict[str, Any], **output: Any) -> Recipe:
        """A shipped recipe of the random networks, with two micro-batches at most."""
        kind = name.partition("_")[0]
        teacher = self.folder / kind
        if not teacher.is_dir():
            (save_folder if self.dry else write_description)(teacher, kind)
        recipe = load_recipe(name, [f"teacher.path={teacher}", f"prompts.source={self.folder / 'prompts.txt'}"])
        given, clip = recipe.loop, {"decoder": str(self.folder / "taesd")}
        if self.dry:
            side = 34 if kind == "pixart" else 16  # smaller ones are refused
            loop = {"micro_batch": 1, "latent_size": side, "optimizer": "adamw"} | loop | {"compile": False}
            clip |= {"model": f"local-dir:{self.folder / 'clip'}", "pretrained": ""}
        else:
            clip |= {"pretrained": str(self.folder / "clip.safetensors")}
        micro = loop.get("micro_batch", given.micro_batch) or given.batch_size
        tree = recipe.model_dump() | {"seed": 0}
        tree["loop"] |= {"batch_size": min(given.batch_size, 2 * micro)} | loop
        tree["clip"] |= clip
        tree["student"]["init"] = tree["prompts"]["text_cache"] = ""
        tree["output"] |= {"folder": str(self.folder / "run"), "sample_every": 0, "trackers": (), **output}
        return Recipe.model_validate(tree)


def iterate(trainer: Trainer, step: int | None = None) -> tuple[float, torch.Tensor, dict[str, float]]:
    """Seconds of an iteration as the trainer does it, x0 and the metrics. `step`: of the student's; None = random."""
    d, recipe = trainer.distillation, trainer.recipe
    rows, device = recipe.loop.batch_size, trainer.accelerator.device
    drawn = draw(recipe, trainer.iteration, channels=4, num_train_timesteps=1000, step=step)
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    start = now(device)
    text = trainer.backbone.encode(prompts)
    outcome = d.run(prompts, text, drawn.rows(slice(0, rows), device), recipe.clip.weight)
    if trainer.ema is not None:
        trainer.ema.update()
    trainer.iteration += 1
    return now(device) - start, outcome.x0, outcome.metrics


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(trainer: Trainer, times: int = 2) -> float:
    """Mean seconds of an iteration over all steps of the student, each at its best of `times`."""
    steps = range(len(trainer.recipe.student.steps))
    return sum(min(iterate(trainer, step)[0] for _ in range(times)) for step in steps) / len(steps)


def estimated(recipe: Recipe) -> float:
    """Bytes of the estimate without the CUDA context, which torch's allocator does not count."""
    return estimate(recipe, *describe_teacher(recipe), cuda=False).total


def figures(run: Run, name: str, recipe: Recipe, seconds: float, expected: float | None, remark: str) -> None:
    """A row with times and memory."""
    rows = recipe.loop.batch_size
    peak = None if run.dry else torch.cuda.max_memory_allocated()
    memory = [f"{size / GIB:.2f}" if size else "" for size in (peak, expected)]
    ratio = f"{peak / expected:.3f}" if peak and expected else ""
    run.row(name, f"{seconds:.3f} (batch {rows})", f"{rows / seconds:.2f}", *memory, ratio, remark)


def setting(run: Run, name: str, loop: dict[str, Any], first: dict[str, Any]) -> None:
    """A row for one of `SETTINGS`. `first`: keeps the first iteration of the full-precision run."""
    rows = {"batch_size": 2} if run.dry else {"batch_size": 4, "micro_batch": 4, "gradient_checkpointing": False}
    recipe = run.recipe("sd15", rows | loop)
    trainer = run.build(recipe)
    _, x0, metrics = iterate(trainer)
    found = {"x0": x0} | {key: torch.tensor(metrics[key]) for key in ("vsd", "student_grad", "lora", "lora_grad")}
    found = {key: value.double().cpu() for key, value in found.items()}
    if name == next(iter(SETTINGS)):
        first |= found
    far = {key: ((found[key] - value).norm() / value.norm()).item() for key, value in first.items()}
    remark = "no run in fp32 to compare with"
    if first:
        remark = "relative distance from fp32: " + ", ".join(f"{key} {value:.1e}" for key, value in far.items())
    figures(
        run,
        f"sd15, {name}",
        recipe,
        timed(trainer, run.times),
        None,
        remark if first else "no run in fp32 to compare with",
    )


def checkpoint(run: Run) -> None:
    """Rows for a checkpoint of all weights, written while the training waits, and beside it."""
    trainer = run.build(run.recipe("sd15", {}, background_save=True))
    device = trainer.accelerator.device
    iterate(trainer)
    usual = iterate(trainer)[0]
    start = now(device)
    saved = trainer.save()
    waited = now(device) - start
    size = sum(path.stat().st_size for path in saved.iterdir())
    shutil.rmtree(saved)
    run.row("checkpoint of sd15", *[""] * 5, f"{size / GIB:.2f} GiB in {waited:.2f} s, while the training waits")
    iterate(trainer)
    start = now(device)
    trainer._try_to_save()
    stalled, slowed = now(device) - start, []
    while not trainer._writer.idle():
        slowed.append(iterate(trainer)[0])
    trainer._finish_saving()
    whole = now(device) - start
    during = f"{sum(slowed) / len(slowed):.3f}" if slowed else "no whole iteration"
    run.row(
        "the same, output.background_save",
        *[""] * 5,
        f"the training waits {stalled:.2f} s; written after {whole:.2f} s; an iteration {usual:.3f} s before, {during} "
        "meanwhile",
    )
    trainer._writer.close()
    shutil.rmtree(run.folder / "run")


def shipped(run: Run, name: str, expected: Future[float] | None) -> None:
    """A row for a recipe."""
    recipe = run.recipe(name, {})
    if recipe.loop.optimizer == "adamw8bit" and not find_spec("bitsandbytes"):
        run.row(name, *[""] * 5, "needs bitsandbytes")
        return
    trainer = run.build(recipe)
    iterate(trainer, len(recipe.student.steps) - 1)
    seconds = timed(trainer, run.times)
    card = next((int(part[:-2]) for part in name.split("_") if part.endswith("gb")), 24 if "lora" in name else 0)
    remark = ""
    if card and not run.dry:
        fits = torch.cuda.max_memory_reserved() + 0.8 * GIB < 0.95 * card * GIB
        remark = f"{'fits' if fits else 'DOES NOT FIT'} a card of {card} GB"
    figures(run, name, recipe, seconds, estimated(recipe) if expected is None else expected.result(), remark)


def recipes() -> list[str]:
    """Shipped recipes of a published teacher: one for 24 GB of each family first."""
    names = [name for name in recipe_names() if name.partition("_")[0] in KINDS]
    return sorted(names, key=lambda name: ("sd21" in name, "24gb" not in name and "4step" not in name, name))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny networks on a CPU, to try the command out")
    parser.add_argument("--recipes", nargs="*", help="instead of all")
    parser.add_argument("--minutes", type=float, default=8, help="what would take longer is left out, and named")
    parser.add_argument("--out", type=Path, default=Path("out/train-gpu.md"))
    arguments = parser.parse_args(words)
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use; --dry-run tries the command on a CPU")
    begun = time.monotonic()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snoopi-bench-")))
        end = begun + 60 * arguments.minutes
        run = Run(folder=folder, out=arguments.out, dry=arguments.dry_run, end=end)
        (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
        AutoencoderTiny().save_pretrained(folder / "taesd")
        write_tiny_clip(folder / "clip") if run.dry else write_clip(folder)
        names = recipes() if arguments.recipes is None else arguments.recipes
        expected: dict[str, Future[float]] = {}
        if not run.dry:  # estimates are made by the CPU meanwhile
            pool = stack.enter_context(ProcessPoolExecutor(4, mp_context=get_context("spawn")))
            stack.callback(pool.shutdown, cancel_futures=True)
            expected = {name: pool.submit(estimated, run.recipe(name, {})) for name in names}
        device = "dry run on a CPU with tiny networks" if run.dry else torch.cuda.get_device_name()
        run.line(f"{device}; torch {torch.__version__}, CUDA {torch.version.cuda}\n\n{HEAD}\n{'|---' * 7}|")
        first: dict[str, Any] = {}
        for name in names[:6]:
            run.measure(name, lambda name=name: shipped(run, name, expected.get(name)))
        for name, loop in list(SETTINGS.items())[:-1]:
            run.measure(name, lambda name=name, loop=loop: setting(run, name, loop, first))
        run.measure("checkpoint of sd15", lambda: checkpoint(run), 90)
        for name in names[6:]:
            run.measure(name, lambda name=name: shipped(run, name, expected.get(name)))
        name = list(SETTINGS)[-1]
        run.measure(name, lambda: setting(run, name, SETTINGS[name], first), 120)
    print(f"{time.monotonic() - begun:.0f} s; the table is in {arguments.out}")


if __name__ == "__main__":
    main()
