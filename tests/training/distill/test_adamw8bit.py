"""8-bit Adam, which the recipes for 24 GB use: runs on a CPU too, and a resumed run equals an uninterrupted one."""

from accelerate.utils import DistributedType
from safetensors.torch import load_file
from trainer import assert_same, newest_iteration, tensor_files

from training.pgsb import main
from training.trainer.run_folder.checkpoint import checkpoints

ADAM8 = "loop.optimizer=adamw8bit"


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_run, tmp_path):
    """Only moments of weights with more than 4096 values are kept in 8 bits."""
    for folder, stops in ((tmp_path / "never", (4,)), (tmp_path / "resumed", (2, 4))):
        for last in stops:
            assert (
                main(tiny_run(folder, ADAM8, f"loop.iterations={last}", *(["--resume"] if last > stops[0] else [])))
                == 0
            )
    assert_same(tmp_path / "resumed", tmp_path / "never")
    place = checkpoints(tmp_path / "never" / "checkpoints")[-1]
    moments = load_file(place / "optimizer_student.safetensors")
    assert {value.dtype.itemsize for name, value in moments.items() if name.endswith("state1")} == {1, 4}


def test_moments_of_the_other_optimizer_are_refused(tiny_run, tmp_path, capsys):
    assert main(tiny_run(tmp_path, "loop.iterations=1")) == 0
    before = tensor_files(tmp_path)
    assert main(tiny_run(tmp_path, ADAM8, "loop.iterations=2", "--resume", "--accept-changes")) == 2
    assert "loop.optimizer: adamw -> adamw8bit" in capsys.readouterr().err
    assert newest_iteration(tmp_path) == 1 and tensor_files(tmp_path) == before


def test_it_is_refused_with_fsdp(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("accelerate.Accelerator.distributed_type", DistributedType.FSDP)
    monkeypatch.setattr("accelerate.Accelerator.is_fsdp2", True)
    assert main(tiny_run(tmp_path / "run", ADAM8)) == 2
    assert "loop.optimizer=adamw8bit does not support FSDP" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
