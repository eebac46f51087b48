"""What a newcomer sees first: the main templates' own pictures, and those of the next two seeds, show the effect."""

from __future__ import annotations

import json
from statistics import fmean

import pytest
from host_world import HostStudent
from templates import COMPARE, FIRST, api_file

from experiments.avatars.world import AVATARS, pair
from experiments.removal import verdicts
from scripts.workflows.bundled import STUDENT

pytestmark = pytest.mark.host

NEXT = 2  # how often a newcomer presses Run again before reading anything


def titled(prompt: dict, title: str) -> dict:
    return next(node["inputs"] for node in prompt.values() if node.get("_meta", {}).get("title") == title)


@pytest.mark.parametrize("name", [FIRST, COMPARE])
def test_the_first_pictures_show_what_a_negative_does(name: str) -> None:
    prompt = json.loads(api_file(name).read_text(encoding="utf-8"))
    nodes = {node["class_type"]: node["inputs"] for node in prompt.values()}
    text, negative = (titled(prompt, title)["text"] for title in ("Prompt", "Negative prompt"))
    seed = nodes["PrimitiveInt"]["value"] if "PrimitiveInt" in nodes else nodes["SnoopiOneStepSampler"]["seed"]
    student = HostStudent(STUDENT, alpha=nodes["SnoopiNASAApply"]["alpha"])
    count = nodes["EmptyLatentImage"]["batch_size"]
    absent = {"without": [], "with": []}
    for each in range(seed, seed + 1 + NEXT):
        for way, away in (("without", None), ("with", negative)):
            seen = AVATARS.read(student([text] * count, [each] * count, away))
            absent[way].append(fmean(verdicts(seen, pair(text, negative))["absent"]))
    print(f"{text!r} minus {negative!r}: absent in {absent}")
    assert absent["with"][0] - absent["without"][0] >= 0.5, "the chosen seed shows the effect"
    assert fmean(absent["with"]) >= 0.9 > fmean(absent["without"])
