"""One process, two processes and micro-batches: the same training, from the same recipe.

The student has two steps, of which these iterations draw both, and the LoRA teacher batches of its own.
"""

import json

import pytest
import torch
import trainer
from tiny import STOCK_SCALE, tiny_backbone
from tiny_clip import write_tiny_clip

from training.trainer.export import export_backbone
from training.trainer.run_folder.checkpoint import check_intact, checkpoints, load_state

ITERATIONS = 4
FEW = 5
TOLERANCE = 1e-5
TWO_STEPS = ("student.timesteps=999,499", "lora.updates=2", "lora.batches=fresh")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    backbone = tiny_backbone("v_prediction", latent_scale=STOCK_SCALE)
    return export_backbone(path, backbone, title="tiny", role="teacher")


def train(teacher, folder, *more, processes=1, iterations=ITERATIONS, expect=0, **settings):
    """Output of the first process."""
    arguments = [
        *("--cpu", f"teacher.path={teacher}", f"output.folder={folder}", f"loop.iterations={iterations}"),
        *("loop.batch_size=4", f"output.save_every={(iterations + 1) // 2}", "output.sample_every=0"),
        *("output.log_every=1", "output.trackers=[]", *more),
    ]
    log = folder.parent / f"{folder.name}.log"
    if processes == 1:
        return trainer.train(log, *arguments, expect=expect)
    outputs = [one.end(expect) for one in trainer.start_distributed(log, *arguments, processes=processes, **settings)]
    return outputs[0]


def weights(folder):
    state = load_state(checkpoints(folder / "checkpoints")[-1])
    moments = {f"optimizer_{name}": saved.tensors for name, saved in state.optimizers.items()}
    return state.networks | moments


def difference(folder, other):
    """Relative difference of the trained tensors of two runs, by file: networks and optimiser moments."""
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    found = {}
    for name in ours:
        assert ours[name].keys() == theirs[name].keys()
        a, b = (torch.cat([w[key].double().flatten() for key in ours[name]]) for w in (ours[name], theirs[name]))
        found[name] = ((a - b).norm() / b.norm()).item()
    return found


@pytest.fixture(scope="module")
def alone(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(teacher, folder, *TWO_STEPS)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["step"] for line in lines} == {1, 2}
    return folder


@pytest.mark.full
@pytest.mark.slow
def test_a_lora_student_with_the_clip_loss_too(teacher, tmp_path):
    """CLIP judges half of the batch: different rows in each process and micro-batch, the same rows overall. The
    gradient passes through both steps of the student."""
    clip = write_tiny_clip(tmp_path / "clip")
    more = [f"clip.model=local-dir:{clip}", "clip.weight=1.0", "clip.margin=1.0"]
    more += ["student.train=lora", "student.lora_rank=4", "student.lora_scaling=4"]
    more += [*TWO_STEPS, "student.step_gradient=all"]
    for folder, settings in (
        ("one", {}),
        ("two", {"processes": 2}),
        ("sharded", {"processes": 2, "alter": trainer.with_fsdp}),
    ):
        train(teacher, tmp_path / folder, *more, iterations=FEW, **settings)
    for folder in ("two", "sharded"):
        found = difference(tmp_path / folder, tmp_path / "one")
        print(f"{folder}: " + ", ".join(f"{network} {value:.1e}" for network, value in found.items()))
        assert max(found[network] for network in ("student", "ema", "lora")) <= TOLERANCE
    figures = [json.loads((tmp_path / f / "metrics.jsonl").read_text().splitlines()[0])["clip"] for f in ("one", "two")]
    assert figures[1] == pytest.approx(figures[0], rel=1e-5) and figures[0] > 0


@pytest.mark.slow
@pytest.mark.full
def test_each_process_can_draw_its_own_kappa(teacher, tmp_path):
    train(teacher, tmp_path, "guidance.kappa_per=rank", processes=2, iterations=FEW)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(line["kappa"] == pytest.approx((line["kappa_0"] + line["kappa_1"]) / 2) for line in lines)
    assert all(line["kappa_0"] != line["kappa_1"] for line in lines)


def test_a_batch_that_cannot_be_split_is_refused(teacher, tmp_path):
    output = train(teacher, tmp_path, "loop.batch_size=3", "loop.micro_batch=2", expect=2)
    assert "loop.batch_size" in output and "3" in output and "micro_batch" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("distributed", "settings", "more"),
    [
        ("NO", {}, ["loop.micro_batch=1"]),
        ("MULTI_CPU", {"processes": 2}, ["output.background_save=true"]),
        pytest.param("MULTI_CPU", {"processes": 2}, ["loop.micro_batch=1"], marks=pytest.mark.full),
        ("FSDP", {"processes": 2, "alter": trainer.with_fsdp}, ["output.background_save=true"]),
    ],
    ids=["micro-batches", "2 processes", "2 processes, micro-batches", "2 processes, FSDP"],
)
def test_however_the_batch_is_split_the_training_is_the_same(teacher, alone, tmp_path, distributed, settings, more):
    train(teacher, tmp_path, *TWO_STEPS, *more, **settings)
    environment = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
    assert environment["distributed"] == distributed and environment["processes"] == settings.get("processes", 1)
    assert len([check_intact(path) for path in checkpoints(tmp_path / "checkpoints")]) == 2
    found = difference(tmp_path, alone)
    print(", ".join(f"{network} {value:.1e}" for network, value in found.items()))
    assert max(found[network] for network in ("student", "ema", "lora")) <= TOLERANCE
