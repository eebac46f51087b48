"""Runs a variant of a training step in a separate process, on request.

With a process for each variant, peak memory is measured separately, and the variants can run in turn.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from clock import PHASES, Clock
from operations import flops
from peak import own_peak
from random_model import PROMPTS
from reference_step import ReferenceStep

from training.config import Recipe
from training.distill.networks import trainable
from training.distill.rng import Draws, draw, generator
from training.trainer.build import build_trainer, check_compiled_gradients
from training.trainer.distributed.accelerator import start_accelerator

Figures = dict[str, torch.Tensor]


class Step(Protocol):
    """One iteration."""

    optimizers: tuple[torch.optim.Optimizer, ...]
    lora_teacher: torch.nn.Module

    def step(self, prompts: list[str], draws: Draws) -> Figures: ...


class OurStep:
    """The trainer's own iteration, as training/trainer/trainer.py does it: text, Distillation.run, EMA."""

    def __init__(self, recipe: Recipe, clock: Clock, *, cpu: bool) -> None:
        self.run = run = build_trainer(recipe, start_accelerator(recipe, cpu=cpu))
        if recipe.loop.compile:
            check_compiled_gradients(run)
        d = run.distillation
        self.optimizers = (d.student_optimizer, d.lora_optimizer)
        self.lora_teacher = d.lora_teacher
        clock.watch(d, "student_x0", "student forward")
        clock.watch(d, "student_gap", "teachers")
        clock.watch(d, "lora_teacher_loss", "LoRA forward + backward")
        backward = {"LoRA forward + backward": "LoRA forward + backward", "teachers": "student backward"}
        clock.watch(run.accelerator, "backward", backward)
        update = {"student backward": "student optimiser + EMA", "LoRA forward + backward": "LoRA optimiser"}
        clock.watch(d, "update", update)
        self.clock = clock

    def step(self, prompts: list[str], draws: Draws) -> Figures:
        run = self.run
        with self.clock("text"):
            text = run.backbone.encode(prompts)
        outcome = run.distillation.run(prompts, text, draws, run.recipe.clip.weight)
        with self.clock("student optimiser + EMA"):
            run.ema.update()
        return {"x0": outcome.x0} | {name: torch.tensor(value) for name, value in outcome.metrics.items()}


VARIANTS: dict[str, Callable[..., Step]] = {"ours": OurStep, "reference": ReferenceStep}


class Bench:
    """The measurements of a worker; every public method can be called by name through `Worker`."""

    def __init__(self, variant: str, recipe: Recipe, *, cpu: bool) -> None:
        self.recipe, self.cpu, self.iteration = recipe, cpu, 0
        self.device = torch.device("cpu" if cpu else "cuda")
        self.clock = Clock(self.device, torch.get_num_threads())
        self.stepper = VARIANTS[variant](recipe, self.clock, cpu=cpu)
        randomise(self.stepper.lora_teacher)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of student and LoRA teacher, without accelerate's wrapper."""
        return [getattr(optimizer, "optimizer", optimizer) for optimizer in self.stepper.optimizers]

    def step(self) -> float:
        """Seconds of one iteration."""
        start = self.clock.now()
        self._step()
        return self.clock.now() - start

    def first(self) -> dict[str, Any]:
        """The figures of the next iteration as arrays: x0, losses, gradient norms."""
        figures = self._step()
        return {name: value.detach().float().cpu().numpy() for name, value in figures.items()}

    def phases(self, steps: int) -> dict[str, float]:
        """Median seconds of each phase, and of the rest."""
        taken: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "the rest")}
        self.clock.running = True
        for _ in range(steps):
            self.clock.seconds = dict.fromkeys(PHASES, 0.0)
            total = self.step()
            for phase, seconds in self.clock.seconds.items():
                taken[phase].append(seconds)
            taken["the rest"].append(total - sum(self.clock.seconds.values()))
        self.clock.running = False
        return {phase: statistics.median(seconds) for phase, seconds in taken.items()}

    def flops(self) -> int:
        """FLOPs of one iteration, counted without compilation."""
        with torch.compiler.set_stance("force_eager"):
            return flops(self._step)

    def peak(self) -> int:
        """Bytes: the allocator's peak on CUDA, else the process's."""
        if not self.cpu:
            return torch.cuda.max_memory_allocated()
        return own_peak()

    def matmul_rate(self) -> float:
        """FLOPs per second of a square matrix product in the networks' precision; the best of ten."""
        side = 2048 if self.cpu else 8192
        dtype = torch.bfloat16 if self.recipe.loop.precision == "bf16" else torch.float32
        a = torch.randn(side, side, device=self.device).to(dtype)
        seconds = []
        for _ in range(12):
            start = self.clock.now()
            a @ a
            seconds.append(self.clock.now() - start)
        return 2 * side**3 / min(seconds[2:])

    def device_name(self) -> str:
        return "CPU" if self.cpu else torch.cuda.get_device_name()

    def _step(self) -> Figures:
        batch = self.recipe.loop.batch_size
        prompts = [PROMPTS[(self.iteration * batch + row) % len(PROMPTS)] for row in range(batch)]
        drawn = draw(self.recipe, self.iteration, channels=4, num_train_timesteps=1000)
        self.iteration += 1
        return self.stepper.step(prompts, drawn.rows(slice(0, batch), self.device))


def randomise(lora_teacher: torch.nn.Module) -> None:
    """Set adapters to random weights: with the initial zeros both teachers agree and the student has no gradient."""
    rng = generator(0, "adapters")
    with torch.no_grad():
        for weight in trainable(lora_teacher):
            weight.copy_(0.05 * torch.randn(weight.shape, generator=rng))


def _serve(connection: Connection, path: list[str], threads: int, arguments: dict[str, Any]) -> None:
    sys.path[:] = path
    if arguments["cpu"]:  # set here because they apply to the whole process
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
    bench = Bench(**arguments)
    connection.send(None)
    while (request := connection.recv()) is not None:
        name, values = request
        connection.send(getattr(bench, name)(*values))


class Worker:
    """A `Bench` in another process, called with a method's name and arguments. Leaving the context ends it."""

    def __init__(self, variant: str, recipe: Recipe, *, cpu: bool, threads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = {"variant": variant, "recipe": recipe, "cpu": cpu}
        self._process = context.Process(target=_serve, args=(theirs, sys.path, threads, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._connection.send(None)
        self._process.join()

    def __call__(self, name: str, *values: Any) -> Any:
        self._connection.send((name, values))
        return self._answer()

    def _answer(self) -> Any:
        """Raises RuntimeError if the process has ended; its own error is printed above."""
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the worker ended with exit code {self._process.exitcode}") from None


def scratch_recipe(folder: Path, overrides: dict[str, dict[str, Any]], recipe: Recipe | None = None) -> Recipe:
    """A recipe for the model that `write_model` wrote to `folder`; it writes only into that folder."""
    tree = {} if recipe is None else recipe.model_dump(mode="json", exclude_none=True)
    ours = {
        "teacher": {"path": str(folder), "text_encoder": "", "vae": ""},
        "student": {"init": ""},
        "prompts": {"source": str(folder / "prompts.txt"), "text_cache": ""},
        "output": {"folder": str(folder / "run"), "sample_every": 0},
    }
    for changes in (ours, overrides):
        for section, values in changes.items():
            tree[section] = tree.get(section, {}) | values
    return Recipe.model_validate(tree)
