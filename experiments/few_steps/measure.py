"""Measures a student with all its steps, and the teacher, with the same captions, prompts and noise."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.avatars import measure
from experiments.avatars.evaluate import CAPTION_SEED, NOISE_SEED
from experiments.avatars.world import AVATARS
from experiments.few_steps.settings import IN_MOST, STUDENTS, Protocol
from experiments.json_file import read_json, write_json
from experiments.removal import Generate, removal_table
from experiments.run_trainer import checkpoint_name, open_checkpoint
from experiments.sampling import ManySteps, few_steps
from training.models.backbone import Backbone
from training.models.loading import load_backbone
from training.prompts.avatars.rules import read


def quality(generate: Generate, protocol: Protocol) -> dict[str, Any]:
    """Shares of stated-right and of valid images of captions that leave attributes open; and the entropy within a
    prompt, in bits, of each prompt and each attribute that it leaves open."""
    texts, stated = measure.caption_set(protocol.captions, CAPTION_SEED, "partial")
    images = generate(texts, list(range(NOISE_SEED, NOISE_SEED + len(texts))))
    row = measure.accuracy(read(images), stated)
    bits = measure.prompt_entropy(generate, count=protocol.prompt_images, seed=NOISE_SEED)
    entropies = [value for attributes in bits.values() for value in attributes.values()]
    return {"captions": len(texts), "stated": row.stated, "valid": row.valid, "entropies": entropies}


def removal(model: Backbone, timesteps: tuple[int, ...], protocol: Protocol) -> dict[str, list[dict[str, float]]]:
    """Removal on the fixed pairs, pair by pair: without the negative, with NASA in all steps, and with NASA in the
    first step alone."""
    scale = protocol.alpha
    arms = {
        "no negative": (few_steps(model, timesteps), False),
        "all steps": (few_steps(model, timesteps, "nasa", scale), True),
        "first step": (few_steps(model, timesteps, "nasa", scale, steered=1), True),
    }
    pairs, count = list(AVATARS.fixed), protocol.pair_images
    return {
        name: [asdict(row) for row in removal_table(AVATARS, generate, pairs, steer=steer, count=count)]
        for name, (generate, steer) in arms.items()
    }


def figures(model: Backbone, timesteps: tuple[int, ...], protocol: Protocol) -> dict[str, Any]:
    """Quality, variety and removal of a student drawn at `timesteps`."""
    return quality(few_steps(model, timesteps), protocol) | {"removal": removal(model, timesteps, protocol)}


def measure_run(run: Path, steps: int, iterations: int, protocol: Protocol) -> dict[str, Any]:
    """Measure the last checkpoint of a run in its own steps, and a student of one step also in the most steps;
    RUN/measured.json keeps the result.

    Raises:
        ValueError: the checkpoint could not be exported.
    """
    about = {"iterations": iterations, "protocol": asdict(protocol), "reader": AVATARS.reader}
    found = read_json(run / "measured.json")
    if {key: found.get(key) for key in about} != about:
        model = open_checkpoint(run / "checkpoints" / checkpoint_name(iterations))
        found = about | figures(model, STUDENTS[steps], protocol)
        if steps == 1:
            found[IN_MOST] = figures(model, STUDENTS[max(STUDENTS)], protocol)
        write_json(run / "measured.json", found)
    return found


def measure_teacher(path: str, file: Path, protocol: Protocol) -> dict[str, Any]:
    """Measure the teacher, 20 steps at cfg 3; `file` keeps the result."""
    about = {"teacher": path, "protocol": asdict(protocol), "reader": AVATARS.reader}
    found = read_json(file)
    if {key: found.get(key) for key in about} != about:
        found = about | quality(ManySteps(model=load_backbone(path)), protocol)
        write_json(file, found)
    return found
