"""May a run be resumed with this recipe?"""

import json

import pytest

from training.config import RecipeError, load_recipe
from training.trainer.run_folder.resume_check import check_folder


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
