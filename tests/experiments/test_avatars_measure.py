"""The measures of the avatars' world, on readings that are known."""

import pytest
import torch

from experiments.avatars.evaluate import sheet
from experiments.avatars.measure import KINDS, OPEN_PROMPTS, accuracy, caption_set, variety, world_entropies
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.parse import parse
from training.prompts.avatars.rules import Reading
from training.prompts.avatars.scene import sample_held_out, sample_scenes


def reading_of(scenes):
    """A reading of pictures of these scenes, of which the first is not valid."""
    valid = torch.arange(len(scenes)) > 0
    return Reading(
        scenes=scenes, valid=valid, mean_error=torch.zeros(len(scenes)), square_error=torch.zeros(len(scenes))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_model_has_everything_right(kind):
    rng = torch.Generator().manual_seed(3)
    scenes = sample_held_out(24, rng) if kind == "held out" else sample_scenes(24, rng)
    captions, stated = caption_set(24, 3, kind)
    assert len(captions) == 24
    found = accuracy(reading_of(scenes), stated)
    assert found.stated == found.all_stated == 1.0 and found.count == 24
    assert found.valid == pytest.approx(23 / 24)
    assert all(share == 1.0 for share in found.per_attribute.values())


def test_a_wrong_attribute_counts_for_itself():
    scenes = [scene for scene in sample_scenes(40, torch.Generator().manual_seed(0)) if scene.subject == "planet"][:2]
    other = "ring" if scenes[0].values["ring"] == "none" else "none"
    stated = [{SUBJECT: ("planet",), "ring": (other,)}, {SUBJECT: ("planet",)}]
    found = accuracy(reading_of(scenes), stated)
    assert found.per_attribute == {"ring": 0.0, SUBJECT: 1.0}
    assert found.stated == 0.5 and found.all_stated == 0.5


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="available: partial, full, held out"):
        caption_set(1, 0, "short")


def test_the_open_prompts_state_what_they_say():
    assert {prompt: parse(prompt) for prompt in OPEN_PROMPTS} == OPEN_PROMPTS


def test_variety_is_one_for_the_world_itself_and_none_for_one_picture():
    bits = {"a planet": world_entropies(OPEN_PROMPTS["a planet"], count=60)}
    assert set(bits["a planet"]) == {"colour", "surface", "ring", "moons", "stars", "sky"}
    assert variety(bits, bits) == 1.0
    assert variety({"a planet": dict.fromkeys(bits["a planet"], 0.0)}, bits) == 0.0


def test_a_sheet_has_all_pictures():
    assert sheet(torch.zeros(5, 3, 64, 64), columns=3).size == (192, 128)
