"""What accelerate's own settings may ask for, and this trainer refuses rather than train something else."""

import pytest
from trainer import train


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "and use loop.micro_batch"),
        ("ACCELERATE_DYNAMO_BACKEND", "eager", "and use loop.compile=true"),
    ],
)
def test_what_the_loop_does_itself_is_refused_from_accelerate(tiny_run, tmp_path, setting, value, said):
    assert said in train(tmp_path / "log", *tiny_run(tmp_path / "run"), expect=2, **{setting: value})
    assert not (tmp_path / "run").exists()
