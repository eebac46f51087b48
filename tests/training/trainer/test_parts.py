"""Checkpoints under FSDP, of which each process writes its part: the same tensors, all or none, for any reader."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from trainer import full_on_the_second, iterations, newest_iteration, on_two_disks, start_distributed, with_fsdp

from training.config import load_recipe
from training.export import main as export
from training.pgsb import main
from training.trainer.distributed.state_dicts import OptimizerState
from training.trainer.run_folder.checkpoint import RunState, check_intact, checkpoints, load_state
from training.trainer.run_folder.parts import all_see
from training.trainer.run_folder.write import begin, commit, write_tensors

pytestmark = pytest.mark.slow
SAVES = ("output.save_every=2", "output.keep_last=9")
NAMES = {"student", "ema", "lora", "optimizer_student", "optimizer_lora"}


def train(tiny_run, folder, *more, alter=with_fsdp, expect=0):
    """Two processes; the first one's output."""
    arguments = tiny_run(folder, *SAVES, *more)
    pair = start_distributed(folder.with_suffix(".log"), *arguments, alter=alter)
    first, _ = [one.end(expect) for one in pair]
    return first


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """Four iterations, with checkpoints at 2 and 4."""
    folder = tmp_path_factory.mktemp("parts") / "run"
    train(tiny_run, folder, "loop.iterations=4")
    return folder


@pytest.fixture(scope="module")
def gathered(tiny_run, tmp_path_factory):
    """The same, gathered by the first process."""
    folder = tmp_path_factory.mktemp("gathered") / "run"
    train(tiny_run, folder, "loop.iterations=4", "output.background_save=true")
    return folder


def tensors(path):
    """Everything in a checkpoint, by network and name."""
    state = load_state(path)
    found = {f"{name} {key}": value for name, weights in state.networks.items() for key, value in weights.items()}
    moments = state.optimizers.items()
    return found | {f"moments of {name} {key}": v for name, saved in moments for key, v in saved.tensors.items()}


def assert_equal(path, other):
    ours, theirs = tensors(path), tensors(other)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


def test_the_parts_are_those_of_the_gathered_checkpoint(run, gathered):
    for step in ("step-00000002", "step-00000004"):
        path = run / "checkpoints" / step
        assert {file.name for file in path.glob("*.safetensors")} == {
            f"{name}.{rank}-of-2.safetensors" for name in NAMES for rank in (0, 1)
        }
        one, other = (check_intact(folder / "checkpoints" / step) for folder in (run, gathered))
        assert all(
            {f"{name}.{n}-of-2.safetensors" for n in (0, 1)} == set(one["networks"][name]) for name in one["networks"]
        )
        assert one["settings"] == other["settings"] and one["position"] == other["position"]
        assert_equal(path, gathered / "checkpoints" / step)


def test_no_process_writes_what_another_has(run, gathered):
    """Each part holds about half of the bytes; what FSDP does not divide, the counts of Adam, is in the first alone."""
    path, whole = (folder / "checkpoints" / "step-00000004" for folder in (run, gathered))
    for name in NAMES:
        sizes = [(path / f"{name}.{n}-of-2.safetensors").stat().st_size for n in (0, 1)]
        assert max(sizes) < 0.7 * (whole / f"{name}.safetensors").stat().st_size
        with safe_open(path / f"{name}.1-of-2.safetensors", framework="pt") as second:
            assert not [key for key in second.keys() if key.endswith(".step")]  # noqa: SIM118


def test_it_resumes_in_two_processes_as_if_it_had_not_stopped(tiny_run, run, tmp_path):
    resumed = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(resumed / "checkpoints" / "step-00000004")
    assert "resumed at iteration 2 of 4" in train(tiny_run, resumed, "loop.iterations=4", "--resume")
    assert_equal(resumed / "checkpoints" / "step-00000004", run / "checkpoints" / "step-00000004")


def test_it_resumes_and_exports_in_one_process(tiny_run, run, tmp_path):
    out = tmp_path / "student.safetensors"
    assert export([str(run), "--out", str(out)]) == 0
    exported = load_file(out)
    assert all(torch.equal(value, exported[key]) for key, value in load_file(run / "export" / out.name).items())
    resumed = shutil.copytree(run, tmp_path / "run")
    assert main(tiny_run(resumed, *SAVES, "loop.iterations=5", "--resume")) == 0
    assert iterations(resumed)[-1] == 5 and newest_iteration(resumed) == 5
    assert {file.stem for file in (resumed / "checkpoints" / "step-00000005").glob("*.safetensors")} == NAMES


@pytest.mark.parametrize("how", ["missing", "one bit"])
@pytest.mark.parametrize("name", ["student.1-of-2", "optimizer_lora.0-of-2"])
def test_damage_to_any_part_is_detected(run, tmp_path, name, how):
    path = shutil.copytree(run / "checkpoints" / "step-00000004", tmp_path / "step-00000004")
    file = path / f"{name}.safetensors"
    if how == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(ValueError, match=name):
        check_intact(path)


def test_a_part_that_is_not_recorded_makes_no_checkpoint(run, tmp_path):
    path = shutil.copytree(run / "checkpoints" / "step-00000004", tmp_path / "step-00000004")
    sums = (path / "sha256sums.txt").read_text(encoding="utf-8").splitlines()
    (path / "sha256sums.txt").write_text("".join(f"{line}\n" for line in sums if "lora.1-of" not in line))
    with pytest.raises(ValueError, match=r"lora\.1-of-2\.safetensors is missing"):
        check_intact(path)


@pytest.mark.full
def test_a_checkpoint_is_there_with_all_parts_or_not_at_all(tiny_run, run, tmp_path):
    folder = tmp_path / "run"
    output = train(tiny_run, folder, "loop.iterations=4", alter=full_on_the_second)
    assert "no checkpoint could be written (process 1: [Errno 28] No space left on device)" in output
    assert "Training continues and tries again in 2 iterations" in output
    assert [path.name for path in checkpoints(folder / "checkpoints")] == ["step-00000004"]
    assert not list((folder / "checkpoints").glob(".*")), "nothing is left of it"
    assert_equal(folder / "checkpoints" / "step-00000004", run / "checkpoints" / "step-00000004")


def test_an_older_file_on_a_disk_of_its_own_is_not_the_first_process_s(tmp_path, monkeypatch):
    """As a run leaves it whose first process was on another machine."""
    file = tmp_path / "recipe.toml"
    file.touch()
    for other, shared in ((file.stat().st_mtime_ns, True), (1, False), (None, False)):
        monkeypatch.setattr("training.trainer.run_folder.parts.gather_object", lambda own, other=other: [*own, other])
        assert all_see(None, file) is shared


@pytest.mark.full
def test_without_a_shared_disk_the_first_process_gathers(tiny_run, gathered, tmp_path):
    folder = tmp_path / "run"
    assert "is not on a disk that all processes see" in train(tiny_run, folder, "loop.iterations=2", alter=on_two_disks)
    content = json.loads((folder / "checkpoints" / "step-00000002" / "state.json").read_text(encoding="utf-8"))
    assert content["networks"]["student"] == "student.safetensors"
    assert_equal(folder / "checkpoints" / "step-00000002", gathered / "checkpoints" / "step-00000002")


def test_a_process_may_have_no_rows_of_a_tensor(tmp_path):
    """Two rows on three processes: FSDP gives the third none, as (0,) or (0, 4)."""
    whole = torch.arange(8.0).view(2, 4)
    halves = ({name: half.clone() for name in "ab"} for half in whole.split(1))
    rows = [next(halves) | {"step": torch.tensor(7.0)}, next(halves), {"a": torch.empty(0), "b": torch.empty(0, 4)}]
    recipe = load_recipe("shapes")
    states = [
        RunState(
            iteration=3,
            networks={"student": part},
            optimizers={"student": OptimizerState(tensors=part, settings={"others": {}})},
            position={},
            counts={},
            teacher="",
        )
        for part in rows
    ]
    temporary, final = begin(tmp_path, 3), tmp_path / "step-00000003"
    names, sums = [f".{n}-of-3" for n in range(3)], {}
    for name, state in zip(names, states, strict=True):
        sums |= write_tensors(temporary, state, name)
    commit(temporary, final, states[0], recipe, sums, names)
    check_intact(final)
    found = load_state(final)
    for tensors in (found.networks["student"], found.optimizers["student"].tensors):
        assert torch.equal(tensors["a"], whole) and torch.equal(tensors["b"], whole) and tensors["step"] == 7
