"""`make demo`: pictures from a real ComfyUI with and without a negative prompt, and how often the negative worked.

Starts the server headless with the pack installed and runs the shipped workflows over HTTP with the bundled student:
different people from one prompt, then prompts with the same noise without and with a negative. A small network
reads what each picture shows. Writes out/demo.png.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
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

from experiments.avatars.world import AVATARS
from experiments.avatars.world import pair as pair_of
from experiments.removal import Pair, Removal, mean_removal, verdicts
from scripts import ROOT
from scripts.pictures.comparison import Block, Row, comparison
from scripts.pictures.run import run
from scripts.setup.host import HostError, find_host
from scripts.workflows.bundled import ALPHA, COMPARE, FIRST, STUDENT
from scripts.workflows.parts import SCALE

ONE = ROOT / "workflows" / "api" / f"{FIRST.name}.json"
BOTH = ROOT / "workflows" / "api" / f"{COMPARE.name}.json"
OUT = ROOT / "out" / "demo.png"
SAMPLE, SHOWN = 40, 8  # pictures per pair: number counted, number shown
TRIED = 20  # pictures of a prompt, to choose it
PAIR_SEED, SEED = 50_000, 90_000  # prompts are chosen and measured on different seeds
PEOPLE = "a person"
OTHERS = (("a monster", 3), ("a plant", 3), ("a planet", 2))
# A negative shows something only where the unwanted is drawn without it. So each row has negatives, and prompts, the
# plainest first: the first prompt that shows one of them in at least OFTEN of its pictures, else the best of all.
OFTEN = 0.3
COLOURS = tuple(f"{colour} hair" for colour in ("red", "black", "blonde", "gray", "pink"))
ROWS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("glasses",), ("a person", "a professor")),
    (("a beard",), ("a person", "a lumberjack")),
    (COLOURS, ("a portrait", "a portrait with long hair")),
    (("horns",), ("a monster", "a devil")),
    (("a ring",), ("a planet", "a gas giant")),
)
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


def draw(client: Client, text: str, seed: int, count: int) -> list[Image.Image]:
    """Pictures of a prompt without a negative: one batch from this seed."""
    prompt = fill(load_prompt(ONE), text=text, negative="", seed=seed, count=count, alpha=0.0)
    return run(client, prompt)[0][0]


def choose(client: Client, negatives: tuple[str, ...], prompts: tuple[str, ...]) -> Pair:
    """A prompt and a negative of one of ROWS."""
    shown: list[tuple[float, Pair]] = []
    for text in prompts:
        seen = AVATARS.read(pixels(draw(client, text, PAIR_SEED, TRIED)))
        pairs = [pair_of(text, negative) for negative in negatives]
        shown += [(1 - fmean(verdicts(seen, pair)["absent"]), pair) for pair in pairs]
        if max(share for share, _ in shown) >= OFTEN:
            break
    return max(shown, key=lambda found: found[0])[1]


def show(client: Client, pair: Pair) -> tuple[Block, Removal, Removal]:
    """Run the side-by-side workflow for one pair."""
    prompt = fill(load_prompt(BOTH), text=pair.prompt, negative=pair.negative, seed=SEED, count=SAMPLE)
    (without, steered), _ = run(client, prompt)
    rows, judged = [], []
    for label, pictures in (("without", without), (f"with the negative {pair.negative!r} (NASA)", steered)):
        found = verdicts(AVATARS.read(pixels(pictures)), pair)
        unwanted = [not absent for absent in found["absent"]]
        rows.append(Row(label=label, pictures=pictures[:SHOWN], unwanted=unwanted[:SHOWN]))
        judged.append(Removal(**{name: fmean(values) for name, values in found.items()}))
    before, after = judged
    drawn = (
        f"{pair.negative} in {1 - before.absent:.0%} of {SAMPLE} pictures,\nin {1 - after.absent:.0%} with the negative"
    )
    kept = f"the prompt is kept in {after.kept:.0%}"
    block = Block(prompt=pair.prompt, negative=pair.negative, rows=(rows[0], rows[1]), counted=f"{drawn}\n{kept}")
    return block, before, after


def first_rows(client: Client) -> list[Row]:
    """Different pictures of one prompt, and what else the student draws."""
    others = [picture for text, count in OTHERS for picture in draw(client, text, SEED, count)]
    label = ", ".join(f"{text!r} x {count}" for text, count in OTHERS)
    return [
        Row(label=f"{PEOPLE!r}, {SHOWN} times", pictures=draw(client, PEOPLE, SEED, SHOWN), unwanted=[False] * SHOWN),
        Row(label=label, pictures=others, unwanted=[False] * len(others)),
    ]


def time_one(client: Client) -> float:
    """Seconds from the prompt to one saved picture, on a warm server."""
    text = {"text": PEOPLE, "negative": "glasses", "count": 1}
    return min(run(client, fill(load_prompt(ONE), seed=seed, **text))[1] for seed in range(5))


def demo(client: Client) -> None:
    say("drawing people, monsters, plants and planets ...")
    first = first_rows(client)
    shown = []
    for number, row in enumerate(ROWS, start=1):
        began = time.monotonic()
        pair = choose(client, *row)
        shown.append(show(client, pair))
        say(
            f"{number} of {len(ROWS)}: {pair.prompt} without and with the negative {pair.negative!r}, "
            f"{SAMPLE} pictures each ({time.monotonic() - began:.0f} s)"
        )
    before, after = mean_removal([row[1] for row in shown]), mean_removal([row[2] for row in shown])
    seconds = time_one(client)
    gone = (
        f"Unwanted thing gone: {before.absent:.0%} of the pictures without, {after.absent:.0%} with the negative "
        f"(NASA, alpha {ALPHA:g}); prompt kept {after.kept:.0%}"
    )
    at_once = (
        f"All at once (gone, prompt kept, a valid picture): {before.clean:.0%} without, {after.clean:.0%} with the "
        "negative; prompts were chosen that show the thing"
    )
    page = comparison(
        "SNOOPI: a negative prompt that works in one step",
        "Same prompt, same noise, one network evaluation a picture. Red frame: the program that reads "
        "the pictures sees what the negative names.",
        first,
        [row[0] for row in shown],
        f"{gone}.  One picture: {seconds:.2f} s on this machine's CPU.\n{at_once}.",
    )
    OUT.parent.mkdir(exist_ok=True)
    page.save(OUT)
    say(f"{len(shown)} pairs of {SAMPLE} pictures. {gone}")
    say(at_once)
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
    argparse.ArgumentParser(
        prog="python -m scripts.demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    sys.exit(main())
