"""lora.batches: fresh for several updates of the LoRA teacher, and what a run has saved stays as it was."""

import json

import pytest
import torch

from training.config import Recipe, load_recipe
from training.distill.rng import draw, fresh_batches
from training.trainer.run_folder.resume_check import check_folder


def batches(recipes, *overrides):
    return load_recipe(recipes, ["prompts.source=shapes", *overrides]).lora.batches


def test_several_updates_are_fresh_unless_the_recipe_says_otherwise():
    assert batches("avatars") == batches("sd15", "lora.updates=2") == batches(["shapes", "dmd2trick"]) == "fresh"
    assert batches(["shapes", "dmd2trick"], "lora.batches=shared") == "shared"
    assert batches("avatars", "lora.updates=1") == batches("sd15") == "shared"


def test_with_one_update_both_are_the_same():
    """So the shipped recipes of one update are hashed, and train, as before."""
    shared = load_recipe("shapes", ["loop.batch_size=2"])
    fresh = shared.model_copy(update={"lora": shared.lora.model_copy(update={"batches": "fresh"})})
    assert fresh_batches(shared) == fresh_batches(fresh) == 0
    one, other = (draw(recipe, 3, channels=4, num_train_timesteps=1000) for recipe in (shared, fresh))
    assert len(one.lora) == len(other.lora) == 1 and one.lora[0].images is other.lora[0].images is None
    assert torch.equal(one.z, other.z) and torch.equal(one.lora[0].eps, other.lora[0].eps)


@pytest.mark.parametrize(
    ("saved", "overrides", "expected"),
    [
        ([], [], "shared"),
        ([], ["lora.updates=5"], "fresh"),
        (["lora.updates=5"], ["lora.updates=1"], "shared"),
        (["lora.updates=5", "lora.batches=shared"], ["lora.learning_rate=1e-4"], "shared"),
    ],
)
def test_a_saved_recipe_is_changed_as_the_recipe_itself(tmp_path, saved, overrides, expected):
    path = tmp_path / "recipe.toml"
    path.write_text(load_recipe("shapes", saved).to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == load_recipe("shapes", saved)
    assert batches(str(path), *overrides) == expected


def test_a_run_from_before_the_setting_keeps_its_images(tmp_path):
    """Its recipe.toml and its checkpoints do not have it; all updates were on the student's images then."""
    recipe = load_recipe("shapes", ["lora.updates=5", "lora.batches=shared"])
    text = recipe.to_toml().replace('batches = "shared"\n', "")
    assert "batches" not in text
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    content = recipe.model_dump(mode="json")
    del content["lora"]["batches"]
    place = tmp_path / "checkpoints" / "step-00000001"
    place.mkdir(parents=True)
    (place / "state.json").write_text(json.dumps({"recipe": content}), encoding="utf-8")
    again = load_recipe(str(tmp_path / "recipe.toml"))
    assert again == recipe == Recipe.of_run(content)
    assert check_folder(tmp_path, again, resume=True, accept_changes=False) == []
    assert again.sha256() != load_recipe("shapes", ["lora.updates=5"]).sha256()
