"""Atomic writes: two writers of one file, and what a killed process left."""

import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from snoopi_core.formats.atomic import replacing, write_atomically
from snoopi_core.formats.tensor_file import save_atomically


def test_two_writers_of_a_shared_file_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with replacing(path, shared=True) as one, replacing(path, shared=True) as other:
        one.write_text("one" * 1000)
        other.write_text("other")
    assert path.read_text() == "one" * 1000  # its block ended last
    assert list(tmp_path.iterdir()) == [path]


def test_a_tensor_file_is_written_while_another_process_writes_it(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"

    def write_both(tensors, temporary, metadata):
        monkeypatch.undo()
        save_atomically(path, {"a": torch.ones(3)}, {"by": "the other process"})
        save_file(tensors, temporary, metadata)

    monkeypatch.setattr("snoopi_core.formats.tensor_file.save_file", write_both)
    save_atomically(path, {"a": torch.zeros(5)}, {"by": "this process"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"by": "this process"} and file.get_tensor("a").shape == (5,)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_replaced(tmp_path):
    left = tmp_path / ".file.tmp"
    left.write_text("half")
    left.chmod(0o600)
    write_atomically(tmp_path / "file", "whole")
    (tmp_path / "new").touch()
    assert (tmp_path / "file").read_text() == "whole" and not left.exists()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "new")]
    assert modes[0] == modes[1]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
