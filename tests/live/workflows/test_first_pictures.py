"""What a newcomer sees first: the main templates' own pictures, and those of the next two seeds, show the effect."""

from __future__ import annotations

import json

import pytest
from host_world import HostStudent
from templates import COMPARE, FIRST, api_file

from training.prompts.shapes.rules import read

pytestmark = pytest.mark.host

NEXT = 2  # how often a newcomer presses Run again before reading anything


def titled(prompt: dict, title: str) -> dict:
    return next(node["inputs"] for node in prompt.values() if node.get("_meta", {}).get("title") == title)


@pytest.mark.parametrize("name", [FIRST, COMPARE])
def test_the_first_seeds_are_good_with_and_without_the_negative(name: str) -> None:
    prompt = json.loads(api_file(name).read_text(encoding="utf-8"))
    nodes = {node["class_type"]: node["inputs"] for node in prompt.values()}
    text, negative = (titled(prompt, title)["text"] for title in ("Prompt", "Negative prompt"))
    seed = nodes["PrimitiveInt"]["value"] if "PrimitiveInt" in nodes else nodes["SnoopiOneStepSampler"]["seed"]
    student = HostStudent(alpha=nodes["SnoopiNASAApply"]["alpha"])
    count = nodes["EmptyLatentImage"]["batch_size"]
    for each in range(seed, seed + 1 + NEXT):
        for away in (None, negative):
            seen = read(student([text] * count, [each] * count, away))
            assert seen.valid.all(), f"seed {each}, negative {away}"
            assert [shape == negative for shape in seen.values["shape"]] == [away is None] * count
