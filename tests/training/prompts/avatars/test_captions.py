"""Captions of the world of avatars: true, in good English, never more than they state."""

import re

import pytest
import torch

from training.prompts.avatars.captions import (
    GROUPS,
    NULL_PROMPT,
    SUBJECT,
    caption,
    full_caption,
    phrase,
    sentence,
    training_caption,
)
from training.prompts.avatars.scene import SUBJECTS, complete, sample_scenes


@pytest.fixture(scope="module")
def captioned():
    rng = torch.Generator().manual_seed(0)
    return [(scene, *caption(scene, rng)) for scene in sample_scenes(1000, rng)]


PERSON = {
    "hair": "long",
    "hair colour": "red",
    "skin": "light",
    "clothes": "blue",
    "eyewear": "glasses",
    "headwear": "none",
    "facial hair": "none",
    "around": "scarf",
    "background": "white",
}


def test_a_caption_is_true_and_never_empty(captioned):
    for scene, text, stated in captioned:
        assert text
        for name, values in stated.items():
            if name == SUBJECT:
                assert values == (scene.subject,)
            else:
                assert scene.values[name] in values, text


def test_a_caption_is_good_english(captioned):
    for _, text, _ in captioned:
        assert not re.search(r"\{|\}|  |\ban [^aeiou]|\ba [aeiou]|,,| ,|^ | $", text), text


def test_every_phrase_and_every_group_occurs(captioned):
    texts = " | ".join(text for _, text, _ in captioned)
    for subject, about in SUBJECTS.items():
        for name, attribute in about.attributes.items():
            for value, words in attribute.values.items():
                if words.phrase and not attribute.joins:
                    known = re.sub(r"^an? ", "", words.phrase).replace("{} ", "").split()[-1]
                    assert known in texts, (subject, name, value)
    assert "hat" in texts and "lumberjack" in texts and "portrait" in texts


def test_there_are_sentences_tags_and_single_tags_without_a_subject(captioned):
    sentences = [text for _, text, _ in captioned if text.startswith(("a ", "an "))]
    assert 0.6 < len(sentences) / len(captioned) < 0.85
    alone = [text for _, text, stated in captioned if SUBJECT not in stated]
    assert {"glasses", "beard", "horns", "ring", "hat"} <= set(alone)  # as short as a negative prompt


def test_many_captions_are_as_short_as_what_people_write(captioned):
    texts = [text for _, text, _ in captioned]
    assert {"a person", "a professor", "a devil", "a sunflower", "a gas giant"} <= set(texts)
    one = [stated for _, text, stated in captioned if text.startswith(("a ", "an ")) and len(stated) == 2]
    assert len(one) / len(captioned) > 0.1


def test_a_word_of_an_accessory_is_said_of_every_subject(captioned):
    for words in ("glasses", "a beard", "a crown", "horns", "a ring", "a scarf"):
        subjects = {scene.subject for scene, text, stated in captioned if words in text and SUBJECT in stated}
        assert subjects == set(SUBJECTS), words


def test_a_sentence_joins_colours_to_what_has_them():
    scene = complete("person", PERSON)
    text, stated = full_caption(scene, torch.Generator().manual_seed(0))
    assert "long red hair" in text and "reading glasses" in text
    assert text.startswith("a person with ")
    assert text.endswith(", wearing a blue sweater, on a white background")
    assert stated[SUBJECT] == ("person",) and "facial hair" not in stated  # nobody writes "no beard"
    alone = sentence(scene, {"hair colour": "red hair"}, "person", torch.Generator())
    assert alone == "a person with red hair"


@pytest.mark.parametrize(
    ("subject", "values", "expected"),
    [
        ("monster", {"colour": "green", "headwear": "horns"}, "a green monster with horns"),
        (
            "plant",
            {"plant": "cactus", "pot": "blue", "eyewear": "sunglasses"},
            "a cactus in a blue pot with sunglasses",
        ),
        ("planet", {"around": "ring", "sky": "blue"}, "a planet with a ring, in a blue sky"),
    ],
)
def test_other_subjects_have_sentences_of_their_own(subject, values, expected):
    first = {name: next(iter(about.values)) for name, about in SUBJECTS[subject].attributes.items()}
    scene = complete(subject, {**first, **values})
    words = {name: SUBJECTS[subject].attributes[name].values[value].phrase for name, value in values.items()}
    assert expected in sentence(scene, words, SUBJECTS[subject].nouns[0], torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("attribute", "word"), [("headwear", "hat"), ("eyewear", "glasses")])
def test_a_general_word_states_all_its_values(captioned, attribute, word):
    found = [
        stated for _, text, stated in captioned if re.search(rf"(?<!top )(?<!party )(?<!reading )\b{word}\b", text)
    ]
    (values,) = GROUPS[attribute].values()
    assert found and all(stated[attribute] == values for stated in found)


def test_phrase_gives_the_words_of_a_negative_prompt():
    assert phrase("person", "facial hair", "beard") == "a beard"
    assert phrase("person", "hair", "long") == "long hair"
    with pytest.raises(ValueError, match="facial hair 'none' has no words; available: beard"):
        phrase("person", "facial hair", "none")


def test_one_training_caption_in_ten_is_empty():
    rng = torch.Generator().manual_seed(0)
    texts = [training_caption(scene, rng) for scene in sample_scenes(400, rng)]
    assert 0.05 < texts.count(NULL_PROMPT) / len(texts) < 0.16


def test_the_same_seed_gives_the_same_caption():
    scene = complete("person", PERSON)
    assert caption(scene, torch.Generator().manual_seed(3)) == caption(scene, torch.Generator().manual_seed(3))
