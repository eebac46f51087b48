"""Distil a multi-step teacher into a one-step student, image-free (PG-SB, arXiv 2412.02687, Section 3)."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from training.backbone import Backbone, load_backbone
from training.callbacks import MetricsLog, SampleGrid
from training.clip import ClipJudge
from training.config import Recipe, RecipeError, load_recipe, recipe_names
from training.export import check_exportable, export_student, provenance
from training.iteration import Distillation, Levels, NotFinite
from training.noise import draw
from training.players import Teachers, make_student
from training.prompts import open_prompts
from training.shapes.evaluate import one_step_accuracy
from training.state import RunState, checkpoints, load_newest, recipe_changes, save_state

log = logging.getLogger("training.pgsb")


class Stop:
    """Ctrl-C and SIGTERM as a wish, granted between two iterations: in the middle of one, no state is worth saving."""

    wished = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A second signal acts as it always does."""
        before = {number: signal.signal(number, self._wish) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self.wished = True
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)


def open_teacher(recipe: Recipe) -> tuple[Backbone, Levels]:
    """The teacher and its noise levels, with everything checked that can be checked before hours are spent.

    Raises:
        FileNotFoundError: no teacher.
        ValueError: one that does not fit the recipe, or whose student no loader could open.
    """
    backbone = load_backbone(recipe.teacher.path, recipe.teacher.prediction_type)
    check_exportable(backbone)
    levels = Levels.from_schedule(backbone.alphas_cumprod(), recipe, torch.device("cpu"))
    unet = backbone.unet.config
    if unet.addition_embed_type is not None:
        raise ValueError(f"teacher {recipe.teacher.path!r} also takes {unet.addition_embed_type} (SDXL), not supported")
    width = backbone.text_encoder.config.hidden_size
    if unet.cross_attention_dim != width:
        raise ValueError(f"the text encoder is {width} wide, the UNet takes {unet.cross_attention_dim}")
    step = 2 ** (len(unet.block_out_channels) - 1)
    if recipe.loop.latent_size % step:
        raise ValueError(f"loop.latent_size is {recipe.loop.latent_size}, expected a multiple of {step}")
    return backbone, levels


class Run:
    """A distillation with its folder: built from a recipe, resumed or fresh, run to its end."""

    def __init__(self, recipe: Recipe, *, cpu: bool = False) -> None:
        if recipe.loop.threads:
            torch.set_num_threads(recipe.loop.threads)
        self.recipe, self.folder, self.iteration = recipe, Path(recipe.output.folder), 0
        self.accelerator = Accelerator(mixed_precision=recipe.loop.precision, cpu=cpu)
        if self.accelerator.num_processes > 1:
            raise RecipeError(f"{self.accelerator.num_processes} processes; this version trains in one, on one device")
        device = self.accelerator.device
        self.prompts = open_prompts(recipe.prompts, recipe.seed)
        backbone, self.levels = open_teacher(recipe)
        self.backbone, self.levels = backbone.to(device), self.levels.to(device)
        self.grid = (
            SampleGrid(self.folder / "samples", self.backbone, self.prompts, self.levels, recipe)
            if recipe.output.sample_every
            else None
        )
        if self.grid:
            self.grid.draw_teacher()

        student = make_student(self.backbone, recipe)
        self.teachers = Teachers(self.backbone.unet, recipe.lora, recipe.seed)
        settings = {"betas": (0.9, 0.999), "weight_decay": recipe.loop.weight_decay}
        student_optimizer = torch.optim.AdamW(student.parameters(), lr=recipe.student.learning_rate, **settings)
        lora_optimizer = torch.optim.AdamW(self.teachers.lora_parameters(), lr=recipe.lora.learning_rate, **settings)
        student, student_optimizer, lora_optimizer = self.accelerator.prepare(
            student, student_optimizer, lora_optimizer
        )
        self.ema = EMAModel(student.parameters(), decay=recipe.student.ema_decay)
        self.distillation = Distillation(
            recipe=recipe,
            accelerator=self.accelerator,
            student=student,
            teachers=self.teachers,
            student_optimizer=student_optimizer,
            lora_optimizer=lora_optimizer,
            levels=self.levels,
            prediction_type=self.backbone.prediction_type,
            null=self.backbone.encode([""]),
            clip=ClipJudge(recipe.clip, self.backbone.decode, device) if recipe.clip.weight > 0 else None,
        )

    def ema_state(self) -> dict[str, torch.Tensor]:
        """The averaged student under the student's own names."""
        names = [name for name, _ in self.distillation.student.named_parameters()]
        return dict(zip(names, self.ema.shadow_params, strict=True))

    def save(self) -> Path:
        d = self.distillation
        state = RunState(
            iteration=self.iteration,
            student=d.student.state_dict(),
            ema=self.ema_state(),
            lora=self.teachers.lora_state(),
            optimizers={"student": d.student_optimizer.state_dict(), "lora": d.lora_optimizer.state_dict()},
        )
        return save_state(self.folder / "checkpoints", state, self.recipe)

    def resume(self) -> bool:
        """Continue from the newest whole checkpoint, if there is one."""
        found = load_newest(self.folder / "checkpoints")
        if found is None:
            return False
        state, _ = found
        d = self.distillation
        d.student.load_state_dict(state.student)
        self.teachers.load_lora_state(state.lora)
        d.student_optimizer.load_state_dict(state.optimizers["student"])
        d.lora_optimizer.load_state_dict(state.optimizers["lora"])
        for shadow, name in zip(self.ema.shadow_params, self.ema_state(), strict=True):
            shadow.data.copy_(state.ema[name])
        self.iteration = self.ema.optimization_step = state.iteration
        return True

    def train(self, stop: Stop) -> bool:
        """Run to the last iteration, or until a stop is wished for, saving, drawing and logging on the way.

        Returns:
            Whether the last iteration was reached.

        Raises:
            NotFinite: a loss or gradient is not finite; the newest checkpoint is the last good one.
        """
        loop, output, d = self.recipe.loop, self.recipe.output, self.distillation
        metrics = MetricsLog(self.folder / "metrics.jsonl", output.log_every, self.iteration)
        channels, steps = self.backbone.unet.config.in_channels, self.backbone.schedule.num_train_timesteps
        bar = tqdm(initial=self.iteration, total=loop.iterations, desc="PG-SB", unit="it", dynamic_ncols=True)
        with bar:
            while self.iteration < loop.iterations and not stop.wished:
                self._set_learning_rates()
                prompts = self.prompts(self.iteration, loop.batch_size)
                text = self.backbone.encode(prompts)
                draws = draw(
                    self.recipe,
                    self.iteration,
                    channels=channels,
                    num_train_timesteps=steps,
                    device=self.accelerator.device,
                )
                figures = d.run(prompts, text, draws, self._clip_weight())
                self.ema.step(d.student.parameters())
                self.iteration += 1
                metrics.after(self.iteration, figures)
                bar.update()
                bar.set_postfix(
                    vsd=f"{figures['vsd']:.1e}", lora=f"{figures['lora']:.4f}", kappa=f"{figures['kappa']:.2f}"
                )
                last = self.iteration == loop.iterations
                if self.grid and (last or self.iteration % output.sample_every == 0):
                    self.draw_samples()
                if last or self.iteration % output.save_every == 0:
                    self.save()
        return self.iteration == loop.iterations

    def draw_samples(self) -> None:
        """A grid from the averaged student."""
        student = self.distillation.student
        self.ema.store(student.parameters())
        self.ema.copy_to(student.parameters())
        try:
            self.grid.after(self.iteration, student)
        finally:
            self.ema.restore(student.parameters())

    def export(self) -> Path:
        """The averaged student as a file for PG-SB Loader."""
        weights = {name: value.detach().clone() for name, value in self.ema_state().items()}
        teacher = load_backbone(self.recipe.teacher.path)  # the one in memory carries adapters
        return export_student(
            self.folder / "export" / "student.safetensors", teacher, weights, self.recipe, self.iteration
        )

    def _clip_weight(self) -> float:
        clip = self.recipe.clip
        last = clip.weight if clip.final_weight is None else clip.final_weight
        return clip.weight + (last - clip.weight) * self.iteration / self.recipe.loop.iterations

    def _set_learning_rates(self) -> None:
        loop = self.recipe.loop
        rise = min(1.0, (self.iteration + 1) / loop.warmup) if loop.warmup else 1.0
        fall = min(1.0, (loop.iterations - self.iteration) / loop.cooldown) if loop.cooldown else 1.0
        for optimizer, rate in (
            (self.distillation.student_optimizer, self.recipe.student.learning_rate),
            (self.distillation.lora_optimizer, self.recipe.lora.learning_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * rise * fall


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_intermixed_args(arguments)  # options may stand among the overrides
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _run(args)
    except (OSError, ValueError, NotFinite) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe, args.overrides)
    folder = Path(recipe.output.folder)
    print(recipe.to_toml())
    if args.dry_run:
        open_teacher(recipe)
        open_prompts(recipe.prompts, recipe.seed)
        print(f"dry run: recipe, teacher and prompts are in order; the run would write to {folder}")
        return 0
    _check_folder(folder, recipe, args.resume)
    run = Run(recipe, cpu=args.cpu)
    if args.resume:
        if run.resume():
            log.info("resumed at iteration %d", run.iteration)
        else:
            log.info("nothing to resume in %s; starting anew", folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    device = {"python": platform.python_version(), "device": str(run.accelerator.device)}
    (folder / "environment.json").write_text(json.dumps(device | provenance().versions, indent=1), encoding="utf-8")
    stop = Stop()
    with stop.listening():
        if not run.train(stop):
            log.info("stopped; saved %s; go on with --resume", run.save())
            return 130
    student = run.export()
    if recipe.prompts.source == "shapes":
        print("one step on 200 partial captions of the small world:")
        for name, path in (("before (teacher)", recipe.teacher.path), ("after (student)", str(student))):
            right, valid = one_step_accuracy(load_backbone(path), count=200)
            print(f"  {name:16s} all stated attributes right {right:.3f}, valid image {valid:.3f}")
    print(f"student: {student}")
    return 0


def _check_folder(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Raises RecipeError when the run's folder holds another run, or this one and no --resume was given."""
    saved = checkpoints(folder / "checkpoints")
    if not saved:
        return
    if not resume:
        raise RecipeError(f"{folder} holds a run already; continue it with --resume, or choose another output.folder")
    old = json.loads((saved[-1] / "state.json").read_text(encoding="utf-8")).get("recipe", {})
    if changes := recipe_changes(old, recipe.model_dump(mode="json")):
        raise RecipeError(
            "the run was started with another recipe; use that one, or another output.folder:\n  "
            + "\n  ".join(changes)
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.pgsb", description=__doc__)
    parser.add_argument(
        "--recipe",
        default="shapes",
        help=f"a .toml file, or one of: {', '.join(recipe_names())} (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in output.folder, if there is one")
    parser.add_argument("--dry-run", action="store_true", help="resolve and check everything, print it, and stop")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even where a GPU is at hand")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example guidance.kappa_max=3")
    return parser


if __name__ == "__main__":
    sys.exit(main())
