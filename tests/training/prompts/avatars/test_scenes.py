"""Scenes of the world of avatars: what a scene has, frequencies, held-out combinations; the drawing of scenes."""

from collections import Counter

import numpy
import pytest
import torch

from training.prompts.avatars import accessories
from training.prompts.avatars import draw as drawing
from training.prompts.avatars.draw import draw, render
from training.prompts.avatars.scene import (
    HELD_OUT,
    SIZE,
    SUBJECTS,
    Scene,
    complete,
    sample_held_out,
    sample_scene,
    sample_scenes,
)


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(1200, torch.Generator().manual_seed(0))


def first_values(subject: str) -> dict[str, str]:
    """A scene's values, the first of each attribute."""
    return {name: next(iter(about.values)) for name, about in SUBJECTS[subject].attributes.items()}


def test_people_have_eight_attributes_and_there_are_four_subjects():
    assert set(SUBJECTS) == {"person", "monster", "plant", "planet"}
    assert len(SUBJECTS["person"].attributes) >= 8
    assert SIZE >= 64


def test_the_same_seed_gives_the_same_scenes(scenes):
    assert sample_scenes(20, torch.Generator().manual_seed(0)) == scenes[:20]


def test_every_value_occurs_about_as_often_as_its_table_says(scenes):
    plain = [scene for scene in scenes if scene.subject == "person" and not scene.role]
    counts = Counter(scene.values["eyewear"] for scene in plain)
    weights = {name: value.weight for name, value in SUBJECTS["person"].attributes["eyewear"].values.items()}
    for name, weight in weights.items():
        assert counts[name] / len(plain) == pytest.approx(weight / sum(weights.values()), abs=0.08), name
    for subject, about in SUBJECTS.items():
        seen = [scene.values for scene in scenes if scene.subject == subject]
        for name, attribute in about.attributes.items():
            assert {values[name] for values in seen if name in values} == set(attribute.values), (subject, name)


def test_no_training_scene_has_a_held_out_combination_and_every_held_out_scene_has_one(scenes):
    assert not any(scene.held_out for scene in scenes)
    apart = sample_held_out(24, torch.Generator().manual_seed(0))
    assert all(scene.held_out for scene in apart)
    pairs = [(subject, pair) for subject, found in HELD_OUT.items() for pair in found]
    for subject, pair in pairs:
        assert any(s.subject == subject and pair.items() <= s.values.items() for s in apart), pair


def test_a_scene_has_no_attribute_that_cannot_be_seen():
    bald = complete("person", {**first_values("person"), "hair": "bald"})
    assert "hair colour" not in bald.values


@pytest.mark.parametrize(
    ("subject", "values", "message"),
    [
        ("robot", {}, "available: person, monster"),
        ("planet", {"hair": "bald"}, "a planet has no hair"),
        ("planet", {}, "needs a value for colour; available: red"),
        ("planet", {"colour": "brown"}, "'brown' is not known; available: red"),
    ],
)
def test_a_wrong_scene_is_refused_and_the_message_says_what_is_possible(subject, values, message):
    if subject in SUBJECTS and values.get("colour"):
        values = {**first_values(subject), **values}
    with pytest.raises(ValueError, match=message):
        complete(subject, values)


def test_a_role_makes_its_values_likely(scenes):
    beards = [s.values["facial hair"] == "beard" for s in scenes if s.role == "lumberjack"]
    assert sum(beards) / len(beards) > 0.8


def test_a_scene_is_always_drawn_alike_and_every_value_changes_the_picture():
    generator = torch.Generator().manual_seed(1)
    for subject, about in SUBJECTS.items():
        scene = sample_scene(generator, subject)
        base = complete(subject, {**first_values(subject), **scene.values})
        picture = draw(base)
        assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == numpy.uint8
        assert numpy.array_equal(picture, draw(Scene(subject=subject, values=dict(base.values))))
        for name, attribute in about.attributes.items():
            if name not in base.values:
                continue
            other = next(value for value in attribute.values if value != base.values[name])
            changed = complete(subject, {**first_values(subject), **base.values, name: other})
            assert not numpy.array_equal(picture, draw(changed)), (subject, name, other)


def test_render_gives_the_drawings_as_a_batch(scenes):
    images = render(scenes[:2])
    assert images.shape == (2, 3, SIZE, SIZE)
    assert torch.equal(
        (images[1].permute(1, 2, 0) * 255).round().to(torch.uint8), torch.from_numpy(draw(scenes[1]).copy())
    )


def test_every_style_and_variant_exists_in_dicebear():
    for about in SUBJECTS.values():
        style = drawing._style(about.style)
        for attribute in about.attributes.values():
            if attribute.component and not attribute.colour:
                known = style.components()[attribute.component].variants()
                wanted = {value.style for value in attribute.values.values() if value.style}
                assert wanted <= set(known), (about.style, attribute.component)


def test_only_styles_that_may_be_passed_on_are_drawn(pack_root):
    notice = (pack_root / "NOTICE").read_text(encoding="utf-8")
    for about in SUBJECTS.values():
        meta = drawing._style(about.style).meta()
        licence, creator = meta.license().name(), meta.creator().name()
        assert licence in ("CC0 1.0", "CC BY 4.0"), about.style
        assert licence in notice and creator in notice, about.style
        assert meta.source().url() in notice, about.style


def test_without_the_packages_that_draw_the_message_names_the_extra(monkeypatch, scenes):
    def missing(package: str) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(drawing, "files", missing)
    drawing._style.cache_clear()
    drawing._drawn.cache_clear()
    with pytest.raises(ValueError, match="dicebear_styles: install the extra `avatars`"):
        draw(scenes[0])
    drawing._style.cache_clear()
    drawing._drawn.cache_clear()


def test_an_accessory_is_the_same_drawing_on_every_subject():
    """At the same place of two subjects, glasses change the picture alike."""
    changes = []
    for subject, values in (("monster", {"shape": "round"}), ("planet", {})):
        bare = {**first_values(subject), **values, "colour": "blue"}
        top = round(accessories.PLACES[subject, values.get("shape", "")].eyes) - 4
        without, with_glasses = (draw(complete(subject, {**bare, "eyewear": each})) for each in ("none", "sunglasses"))
        assert (without != with_glasses).any(axis=2).sum() > 100
        changes.append(with_glasses[top : top + 8, 20:44].astype(int))
    assert abs(changes[0] - changes[1]).mean() < 25


def test_there_is_a_place_for_every_shape():
    for subject, about in SUBJECTS.items():
        for shape in about.attributes[accessories.SHAPE[subject]].values if subject in accessories.SHAPE else ("",):
            assert (subject, shape) in accessories.PLACES


def test_the_background_fills_the_picture():
    for subject in SUBJECTS:
        values = {**first_values(subject), **({"sky": "black"} if subject == "planet" else {"background": "white"})}
        corners = draw(complete(subject, values))[[0, 0], [0, -1]]
        assert (corners == ([0x10, 0x11, 0x16] if subject == "planet" else 0xF7)).all(), subject
