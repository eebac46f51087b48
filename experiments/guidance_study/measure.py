"""Measures the checkpoints of a run, all with the same captions and noise."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.guidance_study.settings import Protocol
from experiments.guidance_study.worlds import MEASURES, Measures
from experiments.json_file import read_json, write_json
from experiments.removal import Generate, mean_removal, removal_table
from experiments.run_trainer import checkpoint_name, open_checkpoint
from experiments.sampling import ManySteps, one_step
from training.models.backbone import Backbone
from training.models.loading import load_backbone

METRICS = ("gap", "x0_std", "student_grad", "lora_grad")


def quality(
    generate: Generate, measures: Measures, captions: int, prompt_images: int, kind: str = "partial"
) -> dict[str, float]:
    """Shares of stated-right and of valid images for fixed captions, and the entropy within a prompt, in bits."""
    stated, valid = measures.quality(generate, captions, kind)
    found = {"stated": stated, "valid": round(valid, 6)}
    return found | ({"entropy": measures.entropy(generate, prompt_images)} if prompt_images else {})


def final(model: Backbone, measures: Measures, protocol: Protocol) -> dict[str, Any]:
    """Measure more images of the last checkpoint: both kinds of captions, and NASA on the world's pairs."""
    plain = one_step(model)
    choose = measures.pairs
    pairs = choose(plain, protocol.pairs, protocol.curve_prompt_images) if choose else list(measures.world.fixed)

    def mean(generate: Generate, steer: bool) -> dict[str, float]:
        table = removal_table(measures.world, generate, pairs, steer=steer, count=protocol.pair_images)
        return asdict(mean_removal(table))

    return {
        "full": quality(plain, measures, protocol.captions, 0, "full"),
        "partial": quality(plain, measures, protocol.captions, protocol.prompt_images),
        "pairs": len(pairs),
        "no_negative": mean(plain, False),
        "nasa": mean(one_step(model, scale=protocol.alpha), True),
    }


def figures(run: Path, start: int, stop: int) -> dict[str, float]:
    """Means of the trainer's own figures over the iterations start+1 .. stop."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if start < row["iteration"] <= stop]
    return {name: fmean(row[name] for row in rows) for name in METRICS if rows and all(name in row for row in rows)}


def measure_run(run: Path, world: str, iterations: int, every: int, protocol: Protocol) -> dict[str, Any]:
    """Measure every planned checkpoint, then the last one in detail.

    RUN/measured.json is written after each one, and what it already has is not measured again.

    Returns:
        {"curve": figures by iteration, "final": figures of the last checkpoint}

    Raises:
        ValueError: a checkpoint could not be exported.
    """
    written = run / "measured.json"
    found = read_json(written)
    about = {"protocol": asdict(protocol), "world": world, **MEASURES[world].about}
    earlier = {"world": "shapes", **MEASURES[world].about}  # of files from before these were written into them
    is_same = all(found.get(key, earlier.get(key)) == value for key, value in about.items())
    found = (found if is_same else {"curve": {}}) | about
    checkpoints, steps = run / "checkpoints", [*range(every, iterations, every), iterations]
    for before, step in pairwise([0, *steps]):
        if str(step) not in found["curve"]:
            generate = one_step(open_checkpoint(checkpoints / checkpoint_name(step)))
            counts = (protocol.curve_captions, protocol.curve_prompt_images)
            found["curve"][str(step)] = quality(generate, MEASURES[world], *counts)
            found["curve"][str(step)] |= figures(run, before, step)
            write_json(written, found)
    if found.get("final", {}).get("iteration") != iterations:
        last = open_checkpoint(checkpoints / checkpoint_name(iterations))
        found["final"] = {"iteration": iterations} | final(last, MEASURES[world], protocol)
        write_json(written, found)
    # a run that was interrupted or extended has other checkpoints too
    return {"curve": {str(step): found["curve"][str(step)] for step in steps}, "final": found["final"]}


def measure_teacher(path: str, world: str, protocol: Protocol) -> dict[str, Any]:
    """Measure the teacher twice: as intended (upper end), and used as a one-step model (where students start)."""
    model = load_backbone(path)
    counts = (MEASURES[world], protocol.curve_captions, protocol.curve_prompt_images)
    return {"start": quality(one_step(model), *counts), "teacher": quality(ManySteps(model=model), *counts)}
