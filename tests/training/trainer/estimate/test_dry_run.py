"""The sections of a dry run."""

from types import SimpleNamespace

import pytest
import torch

from training.config import load_recipe
from training.prompts import open_prompts
from training.trainer.estimate import dry_run


@pytest.mark.parametrize(
    ("overrides", "device", "expected"),
    [
        ([], "cpu", "3 to 6 times that on a CPU: 3.0 hours to 6.0 hours for the run"),
        (["teacher.path=owner/name"], "cpu", "2 to 3 times that on a CPU: 2.0 hours to 3.0 hours for the run"),
        ([], "cuda", "longer; how much is not known before it runs"),
    ],
)
def test_the_time_in_practice_is_that_of_the_run_on_this_device(monkeypatch, overrides, device, expected):
    monkeypatch.setattr(dry_run, "matmul_rate", lambda device, dtype: 1e12)
    recipe = load_recipe("shapes", ["loop.iterations=3600", *overrides])
    text = dry_run.duration(recipe, SimpleNamespace(flops=1e12), torch.device(device))
    assert "1 s per iteration, 60.0 minutes for the run" in text and expected in text
    assert ("on a CPU" in text) == (device == "cpu")


@pytest.mark.parametrize(("count", "few"), [(5, True), (2000, False)])
def test_prompts_are_called_few_only_if_all_of_them_are(tmp_path, count, few):
    """The sample of a dry run may be smaller than a batch."""
    path = tmp_path / "a.txt"
    path.write_text("\n".join(map(str, range(count))), encoding="utf-8")
    recipe = load_recipe("shapes", [f"prompts.source={path}", "loop.batch_size=1500"])
    source = open_prompts(recipe.prompts, 0)
    text = dry_run.prompts(recipe, source, *dry_run._first_epoch(source))
    assert ("prompts are repeated" in text) == few
