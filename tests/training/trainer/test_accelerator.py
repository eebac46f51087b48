"""The trainer refuses settings of accelerate for things that it does itself."""

import pytest
from trainer import train


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "and use loop.micro_batch"),
        ("ACCELERATE_DYNAMO_BACKEND", "eager", "and use loop.compile=true"),
    ],
)
def test_conflicting_settings_of_accelerate_are_refused(tiny_run, tmp_path, setting, value, message):
    assert message in train(tmp_path / "log", *tiny_run(tmp_path / "run"), expect=2, **{setting: value})
    assert not (tmp_path / "run").exists()
