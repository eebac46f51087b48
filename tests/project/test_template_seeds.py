"""How the seed of a template is chosen."""

from __future__ import annotations

from experiments.removal import Seen
from scripts.workflows.bundled import COMPARE, FIRST
from scripts.workflows.seeds import LEAST, score, with_seed
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.parse import parse


def seen(*eyewear: str) -> Seen:
    return Seen(rows=[{SUBJECT: "person", "eyewear": each} for each in eyewear], valid=[True] * len(eyewear))


def test_a_seed_counts_only_if_its_negative_shows_something() -> None:
    unwanted, bare = [parse("glasses")], seen("none", "none", "none", "none")
    assert score(seen(*["glasses"] * 4), bare, unwanted) > 0.99
    assert score(seen(*["glasses"] * 3, "none"), bare, unwanted) > LEAST
    assert score(seen("glasses", "sunglasses", "none", "none"), bare, unwanted) < LEAST, "drawn in half"
    assert score(bare, bare, unwanted) < LEAST, "never drawn"
    assert score(seen(*["glasses"] * 4), seen(*["glasses"] * 4), unwanted) < LEAST, "not removed"


def test_the_seed_is_set_where_the_workflow_has_one() -> None:
    assert with_seed(FIRST, 17).nodes["sampler"].inputs["seed"] == 17
    compared = with_seed(COMPARE, 17).nodes
    assert compared["seed"].inputs["value"] == 17
    assert compared["sampler_with"] == COMPARE.nodes["sampler_with"], "linked to the Seed node"
