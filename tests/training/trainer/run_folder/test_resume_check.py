"""May a run be resumed with this recipe?"""

import json

import pytest

from training.config import RecipeError, load_recipe
from training.trainer.run_folder.resume_check import check_folder, is_older_than_tf32


def test_a_run_of_an_older_version_keeps_its_shuffle(tmp_path):
    """Its saved recipe names the block of 65,536, so `--resume FOLDER` continues with it; another recipe is told."""
    older = load_recipe("shapes", ["prompts.shuffle_block=65536"])
    place = tmp_path / "checkpoints" / "step-00000001"
    place.mkdir(parents=True)
    (place / "state.json").write_text(json.dumps({"recipe": older.model_dump(mode="json")}), encoding="utf-8")
    assert check_folder(tmp_path, older, resume=True, accept_changes=False) == []
    with pytest.raises(
        RecipeError, match=r"shuffle_block: 65536 -> 0\nOlder .* give prompts.shuffle_block=65536 to con"
    ):
        check_folder(tmp_path, load_recipe("shapes"), resume=True, accept_changes=False)
    with pytest.raises(RecipeError) as error:
        check_folder(tmp_path, load_recipe("shapes", ["prompts.shuffle_block=7"]), resume=True, accept_changes=False)
    assert "Older versions" not in str(error.value)


def test_a_run_of_an_older_version_has_no_tf32(tmp_path):
    """It is resumed as any other, and on CUDA a warning says that its precision changes."""
    recipe = load_recipe("shapes")
    place, content = tmp_path / "checkpoints" / "step-00000001", recipe.model_dump(mode="json")
    place.mkdir(parents=True)
    for older in (False, True):
        if older:
            del content["loop"]["tf32"]
        (place / "state.json").write_text(json.dumps({"recipe": content}), encoding="utf-8")
        assert is_older_than_tf32(tmp_path) == older
        assert check_folder(tmp_path, recipe, resume=True, accept_changes=False) == []
    assert not is_older_than_tf32(tmp_path / "new")
