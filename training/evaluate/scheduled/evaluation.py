"""Measures the averaged student while it is trained (`evaluate.every`), with the metrics and judges of the commands.

All processes make the images, a batch each in turn, and the first one writes and judges them. Nothing that the training
goes on with changes: its random numbers, its weights and its networks' modes are as before, and the models that judge
are loaded anew each time, so that between evaluations they take no memory.
"""

from __future__ import annotations

import gc
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from training.config import Recipe, RecipeError, find_file
from training.console import long_step
from training.distill.noise_levels import NoiseLevels
from training.evaluate.generate.command import folder_of
from training.evaluate.generate.maker import Maker
from training.evaluate.judges.intervals import of_mean
from training.evaluate.judges.load import load_judge
from training.evaluate.judges.removal import judge_sets, legend, summary, tally
from training.evaluate.judges.verdict import Judge
from training.evaluate.metrics import command as scores
from training.evaluate.metrics.distribution import Distribution
from training.evaluate.metrics.text_fit import ClipScore
from training.evaluate.scheduled.check import check_evaluation, find_inception, prompts_of_evaluation, try_judge
from training.evaluate.scheduled.images import make_images
from training.evaluate.sets.manifest import Manifest
from training.evaluate.sets.pairs import load_pairs
from training.evaluate.sets.results import REMOVAL, SCORES, Result, write_result
from training.evaluate.sets.rows import rows_of_list, rows_of_pairs
from training.models.backbone import Backbone
from training.models.guidance.methods import Method
from training.trainer.distributed.accelerator import on_main

log = logging.getLogger(__name__)
_PLAIN = Method("none")


@dataclass(kw_only=True)
class ScheduledEvaluation:
    """Of one run; every process calls the methods. The images and results of the last one stay in evaluation/."""

    recipe: Recipe
    accelerator: Accelerator
    backbone: Backbone
    levels: NoiseLevels

    def __post_init__(self) -> None:
        self.section, self.device = self.recipe.evaluation, self.accelerator.device
        self.folder = Path(self.recipe.output.folder) / "evaluation"
        self.places = self.folder / "prompts", self.folder / "pairs"  # of images
        self.metrics: dict[str, ClipScore | Distribution] = {}  # in the first process
        self._explained = False  # what the table of removal means

    def start(self) -> None:
        """Load everything once, so that what is missing or does not fit is known before the training.

        Raises:
            RecipeError: see `check_evaluation`.
            FailedElsewhere: an error in the first process.
        """
        with self._undisturbed(), long_step("checking what the evaluation needs", at_once=False):
            self.sets: dict[Path, Manifest] = on_main(self.accelerator, self._prepare)

    def measure(self, iteration: int, student: nn.Module) -> dict[str, float]:
        """Make the images and measure them.

        Returns:
            Figures by name, in the first process; empty in the others, and if images could not be made.

        Raises:
            OSError, ValueError: in the first process, when all processes have done their part.
        """
        mode, main = student.training, self.accelerator.is_main_process
        maker = Maker(
            model=replace(self.backbone, network=student),
            recipe=self.levels.sampling_recipe(self.recipe),
            accelerator=self.accelerator,
            latents=(self.backbone.latent_channels, *2 * [self.recipe.loop.latent_size]),
        )
        student.eval()
        try:
            with long_step("evaluating the student", at_once=False), self._undisturbed():
                if main:
                    self._remove_last()
                if error := make_images(maker, self.sets):
                    log.warning("iteration %d: the student cannot be evaluated (%s)", iteration, error)
                    return {}
                scores, judged = (self._score(), self._judge()) if main else ({}, None)
        finally:
            student.train(mode)
        if judged is None:
            return scores
        self._show(iteration, judged)
        return scores | _shares(judged)

    def _remove_last(self) -> None:
        """Also the results: if this evaluation fails, those of an earlier iteration must not be taken for its own."""
        for place in self.places:
            shutil.rmtree(place, ignore_errors=True)
        for result in (self.folder / SCORES, *self.folder.glob(REMOVAL.format("*"))):
            with suppress(OSError):
                result.unlink(missing_ok=True)

    def _prepare(self) -> dict[Path, Manifest]:
        """The images to make, by folder."""
        section, recipe = self.section, self.recipe
        side = recipe.loop.latent_size * 2 ** (len(self.backbone.vae.config.block_out_channels) - 1)
        common = {
            "format": 1,
            "title": recipe.output.title,
            "recipe": self.levels.sampling_recipe(recipe),
            "prediction": self.backbone.prediction_type,
            "seed": recipe.seed,
            "size": (side, side),
            "precision": recipe.loop.precision,
            "batch": section.batch,
        }
        sets, (of_prompts, of_pairs) = {}, self.places
        check_evaluation(recipe)
        try:
            if set(section.metrics) - {"removal"}:
                rows = rows_of_list(prompts_of_evaluation(recipe, section.images), seed=recipe.seed)
                sets[folder_of(of_prompts, _PLAIN)] = Manifest(**common, images=rows)
                self.metrics = self._open_metrics()
            if "removal" in section.metrics:
                pairs = load_pairs(section.pairs)
                rows = rows_of_pairs(pairs, count=section.count, seed=recipe.seed)
                for method in (_PLAIN, Method("nasa", section.alpha)):
                    manifest = Manifest(**common, method=str(method), pairs=pairs, images=rows)
                    sets[folder_of(of_pairs, method)] = manifest
                try_judge(self._open_judge(), pairs, side=side)
            if self.backbone.text_encoder is None:
                self._check_text_cache(sets)
        except (OSError, ValueError) as error:
            raise RecipeError(f"evaluate.every={section.every}: {error}") from error
        return sets

    def _open_metrics(self) -> dict[str, ClipScore | Distribution]:
        """Those that the recipe asks for, each loaded once and freed again; FID's reference is kept."""
        section, found = self.section, dict[str, ClipScore | Distribution]()
        if "clip" in section.metrics:
            clip = ClipScore(section.clip_model, section.clip_weights, section.clip_prefix, section.batch, self.device)
            clip.clip  # noqa: B018 - loads it
            found["clip"] = clip
        if {"fid", "prc"}.intersection(section.metrics):
            distribution = Distribution(
                reference_path=find_file(section.reference),
                save_reference=None,
                inception_weights=str(find_inception(section.inception_weights)),
                side=section.side,
                neighbours=3,  # the paper's
                batch=section.batch,
                device=self.device,
            )
            if distribution.reference.features is None and "prc" in section.metrics:
                raise ValueError(f"evaluate.metrics prc needs images, {section.reference} holds statistics only")
            found |= dict.fromkeys({"fid", "prc"}.intersection(section.metrics), distribution)
        for metric in found.values():
            metric.release()
        return found

    def _open_judge(self) -> Judge:
        section = self.section
        return load_judge(section.judge, section.judge_model, section.judge_weights, self.device)

    def _check_text_cache(self, sets: dict[Path, Manifest]) -> None:
        """A run without a text encoder can only use prompts that the text cache holds."""
        rows = [row for manifest in sets.values() for row in manifest.images]
        try:
            self.backbone.text_cache.check_holds(text for row in rows for text in (row.prompt, row.negative or ""))
        except ValueError as error:
            raise ValueError(
                f"{error}. This run has no text encoder: encode the evaluation's prompts and negatives, too, by naming "
                "them in output.sample_prompts, or give other evaluate.metrics, evaluate.pairs or evaluate.prompts"
            ) from error

    def _score(self) -> dict[str, float]:
        """CLIP score with its interval, FID, precision and recall."""
        if not self.metrics:
            return {}
        folder, not_run = folder_of(self.places[0], _PLAIN), dict[str, str]()
        metrics = {name: metric if name == "clip" else getattr(metric, name) for name, metric in self.metrics.items()}
        try:
            result = scores.measure_set(folder, self.sets[folder], metrics, not_run)
        finally:
            for metric in self.metrics.values():
                metric.release()
        write_result(self.folder / SCORES, "scores", {"protocol": "", "sets": scores.merge([], [result])})
        for name, reason in not_run.items():
            log.warning("evaluation: %s was not measured: %s", name, reason)
        found = {}
        for name, score in result["scores"].items():
            values = {name: score["value"]} if "value" in score else {n: score[n] for n in ("precision", "recall")}
            found |= {f"eval_{key}": value for key, value in values.items()}
            if error := score.get("standard_error"):
                found |= _ends(f"eval_{name}", *of_mean(score["value"], error))
        return found

    def _judge(self) -> Result | None:
        """Removal; None if the recipe does not ask for it."""
        sets, section = {folder: manifest for folder, manifest in self.sets.items() if manifest.pairs}, self.section
        if not sets:
            return None
        result = tally(sets, judge_sets(self._open_judge(), sets, section.batch))
        name = REMOVAL.format(re.sub(r"\W+", "-", section.judge))
        write_result(self.folder / name, "removal", {"judge": {"name": section.judge}, **result})
        return result

    def _show(self, iteration: int, judged: Result) -> None:
        text = summary(judged) if self._explained else f"{summary(judged)}\n{legend(judged)}"
        self._explained = True
        log.info("evaluation after iteration %d, of the averaged student:\n%s", iteration, text)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Keep torch's random state, compile nothing, and free memory at the end."""
        devices = [self.device] if self.device.type == "cuda" else []
        # compiled networks would be compiled again for NASA's attention, which takes longer than these images
        compiles = self.recipe.loop.compile
        try:
            with (
                torch.random.fork_rng(devices),
                torch.compiler.set_stance("force_eager") if compiles else nullcontext(),
            ):
                yield
        finally:
            gc.collect()
            if devices:
                torch.cuda.empty_cache()


def _shares(judged: Result) -> dict[str, float]:
    """Shares of images with NASA, and as eval_plain_... of those without, each with its interval."""
    found = {}
    for row, prefix in zip(judged["sets"], ("eval_plain_", "eval_"), strict=True):
        for name, share in row["means"]["all"].items():
            if isinstance(share, dict):
                found |= {prefix + name: share["share"]} | _ends(prefix + name, share["low"], share["high"])
    return found


def _ends(name: str, low: float, high: float) -> dict[str, float]:
    """A figure's 95 % interval."""
    return {f"{name}_low": low, f"{name}_high": high}
