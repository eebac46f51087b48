"""docs/STUDY.md from the study's numbers; `python -m experiments.guidance_study.page docs/study.json` writes it
again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, median, stdev
from textwrap import fill

from experiments.guidance_study.findings import (
    Results,
    claims,
    diversity,
    ended,
    entropy,
    fluctuation,
    level,
    order,
    pace,
    stated,
    valid,
)
from experiments.guidance_study.plots import TRAINING, curves, draw
from training.evaluate.judges.intervals import wilson
from training.evaluate.report.markdown import spread, table

_INTRO = """\
# The teachers' guidance, in the small world

Written by `make study` from docs/study.json; do not edit. {ended} of {runs} runs ended well.

PG-SB draws the guidance scale of its two teachers at random, kappa ~ U({low:g}, {high:g}), once an iteration for both;
SwiftBrush fixes it, here at 4.5. Each cell below is one way of choosing kappa, or changes what it says besides, the
rest being the recipe `{recipe}` (loss of the LoRA teacher: {lora_loss}); seeds for each: {seeds}. With the same seed
all cells start from the same weights and see the same prompts and noise.

{length}

These are 64x64 images of one object, read back by pixel rules, as in [RESULTS.md](RESULTS.md). The paper's Table 2
is FID of large models; nothing here compares with those figures but the sign of a difference.

*Stated right*: every attribute that the caption names is in the image. *Valid*: one clean object on a plain background.
*Entropy*: in bits, of an attribute that a prompt leaves open, over that prompt's noise seeds; mean over attributes.
"""
_FINDINGS = """\
## What came out

A claim counts as confirmed, or its opposite, where the difference has the same sign with every seed, of two or more,
and where more claims do so than chance would have it (a binomial test at 5 %).
Were there no difference in truth, {seeds} seeds would agree one time in {odds}. Numbers are means of the differences
(smallest .. largest over the seeds); *second half*: the mean over a run's measurements from its middle on, which
hangs less on where the last checkpoint happens to lie.

"""
_FINAL = """\
## At the end of the runs

Averaged students, one step. Mean over the seeds (smallest .. largest); {captions} full and {captions} partial
captions a run, {prompt_images} images for each of 5 prompts. The teacher's rows: {curve_captions} captions,
{curve_prompt_images} images a prompt, which makes their entropy a little lower.

"""
_CURVES = """\
## Along the way

The same {curve_captions} partial captions and noise at every point, {curve_prompt_images} images a prompt for the
entropy. Lines are means over the seeds, bands hold all seeds; iteration 0 is the teacher used in one step.

![Quality along training, by cell](images/study-quality.png)

The trainer's own figures (metrics.jsonl), each point the mean since the one before:

![Score gap, x0 and gradient norms along training, by cell](images/study-training.png)
"""
_STABILITY = """\
## Stability

*Fluctuation*: mean absolute change of a share between successive measurements in the second half of a run; what is
still being learnt counts as well. *Sd of seeds*: standard deviation of the share at the end. The rest: means over the
second half.

"""
_NASA = """\
## A negative prompt

NASA at alpha {alpha:g} on each student's own modal pairs ({pairs} an attribute, {pair_images} images a pair). The
negative is what that student draws most, so *absent* starts low. *Kept*: what the prompt states is drawn; *clean*:
absent, kept and valid at once.

"""
_RUNS = """\
## Every run

In brackets: 95 % Wilson intervals, which hold the chance of the images and not that of the training.

"""
_LIMITS = """\
## What it cannot tell

- Whether the paper's gains hold: they are FIDs of SD1.5, SD2.1 and PixArt-alpha after thousands of iterations.
- What comes after {iterations} iterations, or with a teacher that predicts eps.
- What too large a scale does to a large model: in this world 4.5 need not be too large.
- Small differences: the seeds are few ({seeds}).
"""


def final_table(results: Results) -> str:
    rows = []
    for cell, what in results["cells"].items():
        runs = ended(results, cell)
        full = [run["final"]["full"]["stated"] for run in runs]
        partial = [[value(run) for run in runs] for value in (stated, valid, entropy)]
        rows.append([what["title"], len(runs), *map(spread, [full, *partial])])
    for title, name in (("teacher, used in one step", "start"), ("teacher, 20 steps, cfg 3", "teacher")):
        rows.append([title, "", "", *(results[name][key] for key in ("stated", "valid", "entropy"))])
    return table(["cell", "runs", "stated right, full", "stated right, partial", "valid, partial", "entropy"], rows)


def stability_table(results: Results) -> str:
    half, rows = results["iterations"] / 2, []
    for cell, what in results["cells"].items():
        runs = ended(results, cell)
        moves = [spread([of(key)(run) for run in runs]) for of in (level, fluctuation) for key in ("stated", "valid")]
        between = [stdev(map(value, runs)) if len(runs) > 1 else "-" for value in (stated, valid)]
        late = [
            [fmean(values) for step, values in curves(results, cell, key) if step >= half and values]
            for key in TRAINING
        ]
        rows.append([what["title"], *moves, *between, *(f"{fmean(means):.3g}" if means else "-" for means in late)])
    moves = ["stated right", "valid", "fluctuation, stated", "fluctuation, valid"]
    return table(["cell", *moves, "sd of seeds, stated", "sd of seeds, valid", *TRAINING.values()], rows)


def nasa_table(results: Results) -> str:
    shown = (("no_negative", "absent"), ("nasa", "absent"), ("nasa", "clean"), ("nasa", "kept"))
    rows = [
        [what["title"]]
        + [spread([run["final"][method][key] for run in ended(results, cell)], 2) for method, key in shown]
        for cell, what in results["cells"].items()
    ]
    return table(["cell", "absent, no negative", "absent, NASA", "clean, NASA", "kept, NASA"], rows)


def runs_table(results: Results) -> str:
    rows = []
    for run in results["runs"]:
        if run["problem"]:
            rows.append([run["cell"], run["seed"], "failed: " + run["problem"].replace("|", "/"), "", ""])
        else:
            rates = [_rate(value(run), results["protocol"]["captions"]) for value in (stated, valid)]
            rows.append([run["cell"], run["seed"], *rates, entropy(run)])
    return table(["cell", "seed", "stated right, partial", "valid, partial", "entropy"], rows)


def _rate(share: float, count: int) -> str:
    low, high = wilson(share, count)
    return f"{share:.3f} [{low:.3f}, {high:.3f}]"


def page(results: Results) -> str:
    """The whole page, Markdown."""
    iterations, shipped = results["iterations"], results["recipe_iterations"]
    done = [run for run in results["runs"] if not run["problem"]]
    seeds = len({run["seed"] for run in results["runs"]})
    length = f"Each run has {iterations} iterations"
    speeds = [run["seconds_per_iteration"] for run in done if run["seconds_per_iteration"]]
    if speeds:
        hours = len(results["runs"]) * fmean(speeds) / 3600
        length += f" of {median(speeds):.2f} s on one thread (median), {iterations * hours:.1f} hours in all"
        if iterations < shipped:
            length += f"; the recipe has {shipped} ({shipped * hours:.1f} hours), for which there was no time"
    length += ". Learning rates stay constant, so that with more `--iterations` the same runs go on."
    words = {
        **{name: results[name] for name in ("recipe", "lora_loss")},
        **results["protocol"],
        **dict(zip(("low", "high"), results["kappa"], strict=True)),
        "ended": len(done),
        "runs": len(results["runs"]),
        "seeds": seeds,
        "odds": 2 ** max(seeds - 1, 0),
        "iterations": iterations,
        "length": fill(length, 120),
    }
    sections = [
        (_INTRO, ""),
        (_FINDINGS, "\n".join([claims(results), order(results), diversity(results)])),
        (_FINAL, final_table(results)),
        (_CURVES, ""),
        (_STABILITY, stability_table(results) + "\n" + pace(results)),
        (_NASA, nasa_table(results)),
        (_RUNS, runs_table(results)),
        (_LIMITS, ""),
    ]
    return "\n".join(text.format(**words) + more for text, more in sections)


def write_page(results: Results, path: Path) -> None:
    """The page, and its pictures in images/ beside it."""
    draw(results, path.parent / "images")
    path.write_text(page(results), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.guidance_study.page", description=__doc__)
    parser.add_argument("results", type=Path, help="docs/study.json")
    parser.add_argument("--page", type=Path, default=Path("docs/STUDY.md"))
    args = parser.parse_args(arguments)
    write_page(json.loads(args.results.read_text(encoding="utf-8")), args.page)


if __name__ == "__main__":
    main()
