"""The measures of the avatars' world, on readings that are known."""

from dataclasses import replace

import pytest
import torch

from experiments.avatars import measure
from experiments.avatars.judges import alternatives, compare, nearest_values
from experiments.avatars.measure import KINDS, OPEN_PROMPTS, accuracy, caption_set, variety, world_entropies
from experiments.avatars.sheet import labelled_page, sheet
from experiments.avatars.world import AVATARS, pair
from experiments.removal import Seen, modal_pairs, verdicts
from training.prompts.avatars import accessories
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.draw import render
from training.prompts.avatars.parse import parse
from training.prompts.avatars.rules import Reading
from training.prompts.avatars.scene import SUBJECTS, sample_held_out, sample_scenes


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
    other = "ring" if scenes[0].values["around"] == "none" else "none"
    stated = [{SUBJECT: ("planet",), "around": (other,)}, {SUBJECT: ("planet",)}]
    found = accuracy(reading_of(scenes), stated)
    assert found.per_attribute == {"around": 0.0, SUBJECT: 1.0}
    assert found.stated == 0.5 and found.all_stated == 0.5


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="available: partial, full, held out"):
        caption_set(1, 0, "short")


def test_the_open_prompts_state_what_they_say():
    assert {prompt: parse(prompt) for prompt in OPEN_PROMPTS} == OPEN_PROMPTS


def test_variety_is_one_for_the_world_itself_and_none_for_one_picture():
    bits = {"a planet": world_entropies(OPEN_PROMPTS["a planet"], count=60)}
    assert set(bits["a planet"]) == {"colour", "surface", "sky", *accessories.shared()}
    assert variety(bits, bits) == 1.0
    assert variety({"a planet": dict.fromkeys(bits["a planet"], 0.0)}, bits) == 0.0


def test_entropy_over_valid_pictures_leaves_broken_ones_out(monkeypatch):
    """Pictures of odd seeds are noise, in which anything may be read; the others are drawings of one planet."""
    monkeypatch.setattr(measure, "OPEN_PROMPTS", {"a planet": OPEN_PROMPTS["a planet"]})
    scene = next(each for each in sample_scenes(40, torch.Generator().manual_seed(0)) if each.subject == "planet")
    drawing = render([scene])
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def generate(prompts, seeds, negative=None):
        return torch.cat([noise if seed % 2 else drawing for seed in seeds])

    found = measure.valid_entropy(generate, count=3, seed=0)
    assert found["a planet"] and set(found["a planet"].values()) == {0.0}
    assert measure.valid_entropy(lambda *given: noise.expand(len(given[0]), -1, -1, -1), count=2, seed=0) == {}


def test_a_sheet_has_all_pictures():
    assert sheet(torch.zeros(5, 3, 64, 64), columns=3).size == (192, 128)


def test_a_page_marks_what_is_wrong():
    seen = Seen(rows=[{SUBJECT: "planet", "ring": "none"}, {SUBJECT: "planet", "ring": "ring"}], valid=[True, False])
    stated = [{SUBJECT: ("planet",), "ring": ("ring",)}, {SUBJECT: ("planet",), "ring": ("ring",)}]
    page = labelled_page("two", torch.zeros(2, 3, 64, 64), ["a planet with a ring"] * 2, seen, stated)
    assert page.count('class="wrong"') == 1 and '<span class="wrong">ring: none</span>' in page
    assert page.count('<figure class="invalid"') == 1 and "2 pictures, 1 valid" in page


def test_fixed_pairs_name_what_their_prompt_leaves_open():
    assert [(each.attribute, each.values) for each in AVATARS.fixed] == [
        ("eyewear", ("glasses", "sunglasses")),
        ("facial hair", ("beard",)),
        ("headwear", ("top hat", "party hat")),
        ("hair", ("long",)),
        ("headwear", ("horns",)),
        ("around", ("ring",)),
        ("eyewear", ("glasses", "sunglasses")),
        ("facial hair", ("beard",)),
    ]
    for prompt, negative in (
        ("a person with glasses", "glasses"),
        ("a lumberjack", "a castle"),
        ("a person", "long red hair"),
        ("a street", "glasses"),
    ):
        with pytest.raises(ValueError, match="one thing that it leaves open"):
            pair(prompt, negative)


def test_pictures_are_judged_and_modal_pairs_are_found_by_drawings():
    """In place of a model, the drawings of one person with four kinds of eyewear."""
    scene = next(each for each in sample_scenes(60, torch.Generator().manual_seed(1)) if each.subject == "person")
    eyewear = ("glasses", "none", "glasses", "none")
    scenes = [replace(scene, values={**scene.values, "eyewear": each}) for each in eyewear]
    seen = AVATARS.read(render(scenes))
    judged = verdicts(seen, pair("a person", "glasses"))
    assert judged["absent"] == judged["clean"] == [False, True, False, True] and all(judged["kept"])
    few = replace(AVATARS, open_prompts={"a person": {SUBJECT: ("person",)}})
    found = modal_pairs(few, lambda prompts, seeds, negative=None: render(scenes), per_group=20, count=4)
    eyes = next(each for each in found if each.attribute == "eyewear")
    assert (eyes.values, eyes.negative, eyes.share, eyes.group) == (("glasses",), "reading glasses", 0.5, "person")
    assert found[0].share == 1.0 and len({each.attribute for each in found}) == len(found)


def test_two_judges_agree_on_drawings():
    """A judge that draws every value of an attribute finds the one that was drawn, with what it brings along."""
    scenes = sample_scenes(60, torch.Generator().manual_seed(1))
    planets = [each for each in scenes if each.subject == "planet"][:4]
    found = compare(render(planets), "around", ("ring",))
    absent = sum(each.values["around"] != "ring" for each in planets)
    assert found == {"classifier": absent, "drawing": absent, "agree": 4, "valid": 4, "agree_valid": 4}
    person = next(each for each in scenes if each.values.get("hair") == "bald")
    several = alternatives(person, "hair")
    assert len(several) == 1 + 4 * 5  # bald; and four kinds of hair in five colours
    assert nearest_values(render([person]), [person], "hair") == ["bald"]
    assert nearest_values(render(planets[:1]), planets[:1], "hair") == [None]


def test_open_prompts_name_their_subject():
    assert all(len(stated[SUBJECT]) == 1 for stated in AVATARS.open_prompts.values())
    assert {AVATARS.group(stated, "") for stated in AVATARS.open_prompts.values()} == set(SUBJECTS)
