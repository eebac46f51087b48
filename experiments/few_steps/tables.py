"""The study's tables and its picture."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.few_steps.settings import IN_MOST, STUDENTS
from experiments.negatives.sheets import contact_sheet
from experiments.removal import Generate
from experiments.run_trainer import checkpoint_name, open_checkpoint
from experiments.sampling import ManySteps, few_steps
from training.evaluate.report.markdown import mean_and_range, mean_with_interval, share_with_interval, table
from training.models.loading import load_backbone

Run = dict[str, Any]
ARMS = {"no negative": "no negative", "all steps": "NASA in all steps", "first step": "NASA in the first step"}
PROMPTS = ("a person", "a monster with glasses", "a planet with a ring")
IMAGES, PICTURE_SEED = 12, 70_000


def quality_table(teacher: Run, runs: list[Run], operations: dict[int, float]) -> str:
    """A row for each number of steps, over all seeds. Shares with Wilson intervals, entropies with bootstrap intervals
    over prompts and attributes."""
    most = fmean(teacher["entropies"])

    def row(name: str, several: list[Run], budget: str, cost: str) -> list[str]:
        bits = [value for run in several for value in run["entropies"]]
        captions = sum(run["captions"] for run in several)
        means = (fmean(run[key] for run in several) for key in ("stated", "valid"))
        shares = [share_with_interval(mean, captions) for mean in means]
        return [name, budget, cost, *shares, mean_with_interval(bits), f"{fmean(bits) / most:.2f}"]

    rows = [row("teacher, 20 steps", [teacher], "-", "-")]
    for name, several in _students(runs).items():
        cost = f"{operations[several[0]['steps']] / operations[1]:.2f}"
        rows.append(row(name, several, f"{len(several)} x {several[0]['iterations']}", cost))
    head = ["student", "runs x iterations", "operations of each", "stated right", "valid", "entropy, bits"]
    return table([*head, "of the teacher's"], rows)


def removal_table(runs: list[Run]) -> str:
    """NASA on the fixed pairs, over all seeds; bootstrap intervals over pairs and seeds."""
    rows = []
    for name, several in _students(runs).items():
        for arm, title in ARMS.items():
            if name == _name(1) and arm == "first step":
                continue  # its only step
            found = [row for run in several for row in run["removal"][arm]]
            shares = ([row[key] for row in found] for key in ("absent", "kept", "valid", "clean"))
            rows.append([name, title, *(mean_with_interval(share) for share in shares)])
    return table(["student", "negative", "absent", "kept", "valid", "clean"], rows)


def difference_table(teacher: Run, runs: list[Run]) -> str:
    """What more steps change against one step with the same seed: mean, and range over seeds. Variety is the share of
    the teacher's entropy within a prompt."""
    values = {
        "stated right": lambda run: run["stated"],
        "valid": lambda run: run["valid"],
        "variety": lambda run: fmean(run["entropies"]) / fmean(teacher["entropies"]),
    }
    one = {run["seed"]: run for run in runs if run["steps"] == 1}
    rows = []
    for name, several in _students(runs).items():
        if name == _name(1):
            continue
        pairs = [(run, one[run["seed"]]) for run in several if run["seed"] in one]
        rows.append([name, *(mean_and_range([f(run) - f(base) for run, base in pairs]) for f in values.values())])
    return table(["against one step", *values], rows)


def all_tables(results: dict[str, Any]) -> dict[str, str]:
    """Every table of docs/FEW_STEPS.md by its name there; `results` is the content of docs/data/few_steps.json."""
    teacher, good = results["teacher"], [run for run in results["runs"] if not run["problem"]]
    operations = {int(steps): count for steps, count in results["operations"].items()}
    return {
        "quality": quality_table(teacher, good, operations),
        "difference": difference_table(teacher, good),
        "removal": removal_table(good),
    }


def draw_picture(teacher: str, runs: list[Run], path: Path) -> None:
    """For some prompts, the teacher's images and each student's of the first seed, a row each, with the same noise."""
    models: dict[str, Generate] = {"teacher, 20 steps": ManySteps(model=load_backbone(teacher))}
    for run in (run for run in runs if run["seed"] == runs[0]["seed"]):
        checkpoint = Path(run["folder"], "checkpoints", checkpoint_name(run["iterations"]))
        student = open_checkpoint(checkpoint)
        models[_name(run["steps"])] = few_steps(student)
        if run["steps"] == 1:
            models[f"1 step, {IN_MOST}"] = few_steps(student, STUDENTS[max(STUDENTS)])
    seeds = list(range(PICTURE_SEED, PICTURE_SEED + IMAGES))
    rows = [
        (f"{prompt}: {name}", generate([prompt] * IMAGES, seeds))
        for prompt in PROMPTS
        for name, generate in models.items()
    ]
    contact_sheet(rows, path)


def _students(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of each row of a table: the students of one step in it, and drawn in the most; then the others."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run["steps"]):
        found.setdefault(_name(run["steps"]), []).append(run)
        if IN_MOST in run:
            found.setdefault(f"1 step, {IN_MOST}", []).append(run | run[IN_MOST])
    return found


def _name(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"
