"""`make demo`: pictures from a real ComfyUI with and without a negative prompt, and how often the negative worked.

Starts the server headless with the pack installed, finds what the bundled student draws most where a prompt leaves
something open, uses that as the negative, and runs the shipped workflows over HTTP. Writes out/demo.png.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

# Set before torch is imported. With models this small, more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from live_client import Client, load_prompt
from live_server import Server, ServerError
from PIL import Image

from experiments import removal
from experiments.shapes.world import SHAPES
from scripts import ROOT
from scripts.pictures.comparison import Block, Row, comparison
from scripts.pictures.run import run
from scripts.setup.host import HostError, find_host
from scripts.workflows.descriptions import COMPARE, FIRST, STUDENT
from scripts.workflows.parts import SCALE

ONE = ROOT / "workflows" / "api" / f"{FIRST.name}.json"
BOTH = ROOT / "workflows" / "api" / f"{COMPARE.name}.json"
OUT = ROOT / "out" / "demo.png"
SAMPLE, SHOWN = 40, 8  # pictures per pair: number counted, number shown
PAIR_SEED, SEED = 50_000, 90_000  # negatives are chosen and measured on different seeds
Prompt = dict[str, dict[str, Any]]


def say(text: str) -> None:
    print(f"[demo] {text}", flush=True)


def nodes(prompt: Prompt, kind: str) -> Iterator[dict[str, Any]]:
    return (node for node in prompt.values() if node["class_type"] == kind)


def titled(prompt: Prompt, title: str) -> dict[str, Any]:
    return next(node for node in prompt.values() if node.get("_meta", {}).get("title") == title)


def fill(prompt: Prompt, *, text: str, negative: str, seed: int, count: int, alpha: float | None = None) -> Prompt:
    """Set the texts, seed, batch size and alpha of a workflow."""
    titled(prompt, "Prompt")["inputs"]["text"] = text
    titled(prompt, "Negative prompt")["inputs"]["text"] = negative
    for node in nodes(prompt, "EmptyLatentImage"):
        node["inputs"]["batch_size"] = count
    for node in nodes(prompt, "PrimitiveInt"):
        node["inputs"]["value"] = seed
    for node in nodes(prompt, "SnoopiOneStepSampler"):
        if isinstance(node["inputs"]["seed"], int):
            node["inputs"]["seed"] = seed
    for node in nodes(prompt, "SnoopiNASAApply"):
        node["inputs"]["alpha"] = node["inputs"]["alpha"] if alpha is None else alpha
    return prompt


def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """The original pixels (B, 3, 64, 64) in [0, 1]: the workflow enlarges each to SCALE x SCALE."""
    stack = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stack[:, SCALE // 2 :: SCALE, SCALE // 2 :: SCALE].permute(0, 3, 1, 2).float() / 255


def student(client: Client) -> removal.Generate:
    """The student as a `Generate`; a run of equal prompts is one batch with the first prompt's seed."""

    def generate(prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        images = []
        alpha = 0.0 if negative is None else None
        for text, group in groupby(zip(prompts, seeds, strict=True), key=itemgetter(0)):
            (_, seed), *others = group
            count = 1 + len(others)
            prompt = fill(load_prompt(ONE), text=text, negative=negative or "", seed=seed, count=count, alpha=alpha)
            images.append(pixels(run(client, prompt)[0][0]))
        return torch.cat(images)

    return generate


def show(client: Client, pair: removal.Pair) -> tuple[Block, removal.Removal, removal.Removal]:
    """Run the side-by-side workflow for one pair."""
    prompt = fill(load_prompt(BOTH), text=pair.prompt, negative=pair.negative, seed=SEED, count=SAMPLE)
    (without, steered), _ = run(client, prompt)
    rows, judged = [], []
    for label, pictures in (("without", without), (f"with the negative {pair.negative!r} (NASA)", steered)):
        images = pixels(pictures)
        found = removal.verdicts(SHAPES.read(images), pair)
        unwanted = [not absent for absent in found["absent"]]
        rows.append(Row(label=label, pictures=pictures[:SHOWN], unwanted=unwanted[:SHOWN]))
        judged.append(removal.Removal(**{name: fmean(values) for name, values in found.items()}))
    before, after = judged
    drawn = (
        f"{pair.negative} in {1 - before.absent:.0%} of {SAMPLE} pictures,\nin {1 - after.absent:.0%} with the negative"
    )
    kept = f"the prompt is kept in {after.kept:.0%}"
    block = Block(prompt=pair.prompt, negative=pair.negative, rows=(rows[0], rows[1]), counted=f"{drawn}\n{kept}")
    return block, before, after


def time_one(client: Client) -> float:
    """Seconds from the prompt to one saved picture, on a warm server."""
    text = {"text": "a green ring", "negative": "left", "count": 1}
    return min(run(client, fill(load_prompt(ONE), seed=seed, **text))[1] for seed in range(5))


def demo(client: Client) -> None:
    say("finding what the student draws most ...")
    pairs = removal.modal_pairs(SHAPES, student(client), per_group=1, count=SAMPLE, seed=PAIR_SEED)
    say("using that as the negative: same noise without and with it ...")
    shown = [show(client, pair) for pair in pairs]
    before, after = removal.mean_removal([row[1] for row in shown]), removal.mean_removal([row[2] for row in shown])
    seconds = time_one(client)
    summary = (
        f"unwanted thing absent: {before.absent:.0%} of the pictures without, {after.absent:.0%} with the negative; "
        f"prompt kept {after.kept:.0%}; absent, kept and a clean picture {after.clean:.0%}"
    )
    page = comparison(
        "SNOOPI: a negative prompt that works in one step",
        "Same prompt, same noise, one network evaluation a picture. Red frame: it shows what the negative names.",
        [row[0] for row in shown],
        f"{summary}.  One picture: {seconds:.2f} s on this machine's CPU.",
    )
    OUT.parent.mkdir(exist_ok=True)
    page.save(OUT)
    say(f"{len(pairs)} pairs of {SAMPLE} pictures, {summary}")
    say(f"one picture, from text to file: {seconds:.3f} s")
    say(f"picture: {OUT}")


def main() -> int:
    started = time.monotonic()
    if not (ROOT / "models" / STUDENT).is_file():
        print(
            f"models/{STUDENT} is missing: it comes with the repository, or is rebuilt by: make models", file=sys.stderr
        )
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="snoopi-demo-") as base:
            say("starting a real ComfyUI with the pack in it ...")
            with Server(find_host(), Path(base)) as server:
                demo(server.client)
    except (HostError, ServerError, RuntimeError) as error:
        print(f"[demo] {error}", file=sys.stderr)
        return 1
    say(f"done in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
