import pytest

from training.config import Prompts
from training.prompts import open_prompts


def test_a_file_is_walked_in_new_permutations(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"prompt {n}\n\n" for n in range(5)), encoding="utf-8")
    batch = open_prompts(Prompts(source=str(path)), seed=0).batch
    walk = [prompt for iteration in range(10) for prompt in batch(iteration, 4)]
    epochs = [walk[n : n + 5] for n in range(0, 40, 5)]
    assert all(sorted(epoch) == [f"prompt {n}" for n in range(5)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert batch(7, 4) == walk[28:32], "an iteration's prompts depend on what was asked before"


def test_shapes_are_reproducible_and_differ_by_iteration():
    batch = open_prompts(Prompts(source="shapes"), seed=3).batch
    assert batch(5, 8) == open_prompts(Prompts(source="shapes"), seed=3).batch(5, 8)
    assert batch(5, 8) != batch(6, 8)
    assert all(prompt for prompt in batch(0, 200))


def test_errors_say_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no prompts at 'nowhere.txt'.*one prompt a line"):
        open_prompts(Prompts(source="nowhere.txt"), seed=0)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"empty\.txt holds no prompt"):
        open_prompts(Prompts(source=str(empty)), seed=0)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        open_prompts(Prompts(source=str(binary)), seed=0)
