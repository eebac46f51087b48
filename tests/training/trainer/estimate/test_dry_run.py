"""The sections of a dry run."""

from types import SimpleNamespace

import pytest
import torch

from training.config import RecipeError, load_recipe
from training.prompts import open_prompts
from training.trainer.estimate import dry_run


@pytest.mark.parametrize(
    ("overrides", "device", "expected"),
    [
        ([], "cpu", "3 to 6 times that on a CPU: 3 to 6 hours for the run"),
        (["teacher.path=models/snoopi-avatars-teacher.safetensors"], "cpu", "2 to 3 times that on a CPU"),
        (["teacher.path=owner/name"], "cpu", "2 to 3 times that on a CPU: 2 to 3 hours for the run"),
        ([], "cuda", "longer; how much is not known before it runs"),
    ],
)
def test_the_time_in_practice_is_that_of_the_run_on_this_device(monkeypatch, overrides, device, expected):
    monkeypatch.setattr(dry_run, "matmul_rate", lambda device, dtype: 1e12)
    recipe = load_recipe("shapes", ["loop.iterations=3600", *overrides])
    text = dry_run.duration(recipe, SimpleNamespace(flops=1e12), torch.device(device))
    assert "1 s per iteration, 60 minutes for the run" in text and expected in text
    assert ("on a CPU" in text) == (device == "cpu")


def test_times_have_one_unit_and_two_digits():
    assert [dry_run._duration(seconds) for seconds in (0.04, 9, 119, 2640, 2e6)] == [
        "0.04 seconds",
        "9 seconds",
        "119 seconds",
        "44 minutes",
        "23 days",
    ]
    assert dry_run._duration(2430, 4860) == "40 to 81 minutes" and dry_run._duration(9000, 18000) == "2.5 to 5 hours"


@pytest.mark.parametrize(("processes", "layout"), [("2", "no effect with FSDP"), ("1", "on")])
def test_a_dry_run_knows_fsdp(monkeypatch, processes, layout):
    """accelerate uses FSDP only with several processes."""
    monkeypatch.setattr(dry_run, "matmul_rate", lambda device, dtype: 1e12)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", processes)
    text = dry_run.duration(load_recipe("shapes"), SimpleNamespace(flops=1e12), torch.device("cuda"))
    assert f"loop.channels_last: {layout}\n" in text


@pytest.mark.parametrize(("processes", "moments"), [(2, False), (1, True)])
def test_what_fsdp_refuses_is_no_remedy(monkeypatch, processes, moments):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a small card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2**30))
    found = SimpleNamespace(memory={"weights": 2.0**31}, total=2.0**31)
    text = dry_run.memory(found, torch.device("cuda"), processes)
    assert "student.train=lora" in text and ("adamw8bit" in text) == moments and ("FSDP" in text) != moments


@pytest.mark.parametrize(
    ("version", "optimizer", "problem"),
    [(None, "adamw", "FSDP version 1"), ("2", "adamw8bit", "loop.optimizer=adamw8bit does not support FSDP")],
)
def test_what_a_run_with_fsdp_refuses_a_dry_run_refuses(tmp_path, monkeypatch, version, optimizer, problem):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("FSDP_VERSION", raising=False)
    if version:
        monkeypatch.setenv("FSDP_VERSION", version)
    recipe = load_recipe("shapes", [f"loop.optimizer={optimizer}", f"output.folder={tmp_path / 'run'}"])
    with pytest.raises(RecipeError, match=problem):
        dry_run.dry_run(recipe, cpu=False, resume=False, accept_changes=False)


@pytest.mark.parametrize(("count", "few"), [(5, True), (2000, False)])
def test_prompts_are_called_few_only_if_all_of_them_are(tmp_path, count, few):
    """The sample of a dry run may be smaller than a batch."""
    path = tmp_path / "a.txt"
    path.write_text("\n".join(map(str, range(count))), encoding="utf-8")
    recipe = load_recipe("shapes", [f"prompts.source={path}", "loop.batch_size=1500"])
    source = open_prompts(recipe.prompts, 0)
    text = dry_run.prompts(recipe, source, *dry_run._first_epoch(source))
    assert ("prompts are repeated" in text) == few
