"""Students of all classes from end to end: the command, a resume, the exported file, the host's picture.

The shipped recipes on tiny models in diffusers' own folders, changed only in sizes, and in rates with which two
iterations differ from none.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from figures import measured
from host_nodes import run_node
from host_world import pack_node
from published import save_folder
from reference import relative_error
from safetensors import safe_open
from safetensors.torch import load_file
from trained_students import KINDS, RANK, SCALING, TEACHERS_RANK, Case

from snoopi_core.host.one_step import _SEED_STEP
from training.export import main as export
from training.models.guidance.nasa import nasa
from training.models.loading import load_backbone
from training.pgsb import main as train
from training.prompts.encode import main as encode_prompts

pytestmark = pytest.mark.host

PROMPT, NEGATIVE = "a red ring on the left", "blue"  # of different lengths, both far below T5's 120 tokens
ALPHA, SEED, ROWS = 0.5, 11, 2
BAR = 5e-6


def hashes(folder: Path, pattern: str = "*") -> dict[str, str]:
    files = [path for path in sorted(folder.rglob(pattern)) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, tuple[Path, dict[str, str]]]:
    """Folders as diffusers writes them, and their hashes; weights that half precision holds, as of published models."""
    made = {}
    for key, kind in KINDS.items():
        backbone = kind.make()
        parts = {name: getattr(backbone, name) for name in ("network", "text_encoder", "tokenizer")}
        for name in ("network", "text_encoder"):
            parts[name].half().float()
        folder = tmp_path_factory.mktemp(key)
        (folder / "prompts.txt").write_text("a red ring\na blue square on the left\ngreen\n", encoding="utf-8")
        path = Path(save_folder(folder / "teacher", key, **parts))
        made[key] = path, hashes(path)
    return made


LORAS = [f"{key} lora" for key in KINDS]
CASES = [*LORAS, *KINDS]  # LoRAs first: pytest trains once for both lists only if cases have the same places in them
IN_THE_GATE = ("sd15", "sdxl lora", "pixart lora")


def parameters(cases: list[str]) -> list[Any]:
    return [pytest.param(case, marks=[] if case in IN_THE_GATE else [pytest.mark.full]) for case in cases]


@pytest.fixture(scope="module", params=parameters(CASES))
def case(request, teachers, tmp_path_factory) -> Case:
    key, _, lora = request.param.partition(" ")
    case = Case(key=key, lora=bool(lora), teacher=teachers[key][0], run=tmp_path_factory.mktemp("run"))
    if case.cached:
        assert encode_prompts(case.command(case.run)) == 0
    assert train(case.command(case.run)) == 0
    return case


@pytest.fixture(scope="module")
def backbone(case):
    """The teacher in diffusers."""
    return load_backbone(str(case.teacher))


@pytest.fixture(scope="module")
def opened(case, folder, loras, loader):
    """(MODEL, CLIP) of the host: the exported student, or the exported teacher with the student's LoRA on it."""
    if not case.lora:
        shutil.copy(case.exported, folder / "trained.safetensors")
        return loader.execute("trained.safetensors").result[:2]
    assert export([str(case.teacher), "--out", str(folder / "trained-base.safetensors")]) == 0
    shutil.copy(case.exported, loras / "trained.safetensors")
    return loader.execute("trained-base.safetensors", "trained.safetensors").result[:2]


def modules(backbone, ends):
    return {name for name, _ in backbone.network.named_modules() if name.endswith(ends)}


def check_adapters(weights, names, rank):
    """A pair for each module, and no B that is still zero."""
    assert weights.keys() == {f"{name}.lora_{side}.weight" for name in names for side in "AB"}
    for name in names:
        assert len(weights[f"{name}.lora_A.weight"]) == rank
        assert weights[f"{name}.lora_B.weight"].any()


class TestTheCheckpoint:
    def test_each_network_has_a_file_of_its_own(self, case, backbone):
        networks = {"student", "ema", "lora", "optimizer_student", "optimizer_lora"}
        files = {path.name for path in (case.run / "checkpoints" / "step-00000002").iterdir()}
        assert files == {f"{name}.safetensors" for name in networks} | {"state.json", "sha256sums.txt"}
        check_adapters(case.weights("lora"), modules(backbone, (".to_q", ".to_v")), TEACHERS_RANK)
        student, mean, start = case.weights("student"), case.weights("ema"), backbone.network.state_dict()
        if case.lora:
            check_adapters(student, modules(backbone, (".to_q", ".to_k", ".to_v", ".to_out.0")), RANK)
        else:
            assert {name: w.shape for name, w in student.items()} == {name: w.shape for name, w in start.items()}
            assert all(not torch.equal(weight, start[name]) for name, weight in student.items())
        assert mean.keys() == student.keys()
        assert all(not torch.equal(weight, mean[name]) for name, weight in student.items())

    def test_resumed_after_the_first_iteration_it_is_the_same(self, case, tmp_path, caplog):
        shutil.copytree(case.run, tmp_path, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "checkpoints" / "step-00000002")
        shutil.rmtree(tmp_path / "export")
        with caplog.at_level("INFO"):
            assert train(case.command(tmp_path, "--resume")) == 0
        assert "resumed at iteration 1" in caplog.text
        assert hashes(tmp_path / "checkpoints", "*.safetensors") == hashes(case.run / "checkpoints", "*.safetensors")
        # The library writes a header's entries in any order, so these two files are not compared byte by byte.
        again = load_file(tmp_path / "export" / "student.safetensors")
        before = load_file(case.exported)
        assert again.keys() == before.keys() and all(torch.equal(again[name], w) for name, w in before.items())
        assert header(tmp_path / "export" / "student.safetensors") == header(case.exported)

    def test_a_few_step_student_was_trained_at_a_later_step(self, case):
        first = json.loads((case.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
        assert first.get("step") == (4 if len(case.timesteps) == 4 else None)

    def test_the_teacher_is_unchanged(self, case, teachers):
        path, before = teachers[case.key]
        assert hashes(path) == before


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def scheduler(case: Case) -> DDPMScheduler:
    return DDPMScheduler.from_pretrained(case.teacher / "scheduler", clip_sample=False)


def noise_level(case: Case) -> tuple[float, float]:
    """alpha_T, sigma_T, by diffusers' reading of the teacher's scheduler."""
    power = scheduler(case).alphas_cumprod[case.timesteps[0]].item()
    return power**0.5, (1 - power) ** 0.5


def test_the_files_header_says_how_it_is_sampled(case):
    metadata = json.loads(header(case.exported)["snoopi.lora" if case.lora else "snoopi.model"])
    assert metadata["role"] == ("student_lora" if case.lora else "student")
    assert (metadata["family"], metadata["prediction_type"]) == (case.kind.family, "epsilon")
    assert metadata["recipe"]["timesteps"] == list(case.timesteps)
    assert (metadata["recipe"]["alpha_T"], metadata["recipe"]["sigma_T"]) == pytest.approx(noise_level(case), rel=1e-6)
    assert metadata["schedule"] == {key: scheduler(case).config[key] for key in metadata["schedule"]}
    assert metadata["recommended_alpha"] == case.alpha
    assert metadata["provenance"]["step"] == 2


@torch.no_grad()
def in_diffusers(case, backbone, network, text, *, half=True, negative=None):
    """x0 at each step, by diffusers' scheduler, of what a checkpoint has of `network` (None = the teacher), with
    weights as in the file or as trained."""
    weights = {} if network is None else case.weights(network)
    if half:
        weights = {name: weight.half().float() for name, weight in weights.items()}
    state = {name: weight.clone() for name, weight in backbone.network.state_dict().items()}
    for name, weight in weights.items():
        if not case.lora:
            state[name] = weight
        elif ".lora_A." in name:  # W + alpha / r * up @ down
            state[name.replace(".lora_A.", ".")] += SCALING / RANK * weights[name.replace("lora_A", "lora_B")] @ weight
    student = type(backbone.network).from_config(backbone.network.config).eval()
    student.load_state_dict(state)
    found, ddpm = [], scheduler(case)
    with nasa(student, negative, ALPHA if negative else 0.0):
        for number, t in enumerate(case.timesteps):
            rng = torch.Generator().manual_seed((SEED + number * _SEED_STEP) % 2**64)
            z = torch.randn((ROWS, 4, case.kind.side, case.kind.side), generator=rng)
            x = ddpm.add_noise(found[-1], z, torch.tensor(t)) if found else z
            output = backbone.call(student, x, torch.full((ROWS,), t), text.expand(ROWS))
            found.append(ddpm.step(output, t, x).pred_original_sample)
    return found


def conditioning(text):
    """Like in the host, which does not pad prompts for T5; diffusers masks the padding."""
    pooled = {} if text.pooled is None else {"pooled_output": text.pooled}
    return [[text.states if text.mask is None else text.states[:, text.mask[0]], pooled]]


@torch.no_grad()
def in_the_host(case, model, text, negative=None, timesteps="auto", preset="auto"):
    """x0 in the network's scale, by the nodes."""
    if negative is not None:
        model = pack_node("nasa_apply", "NASAApply").execute(model, conditioning(negative), ALPHA).result[0]
    latent = {"samples": torch.zeros(ROWS, 4, case.kind.side, case.kind.side)}
    sampler = pack_node("one_step_sampler", "OneStepSampler")
    samples = sampler.execute(model, conditioning(text), latent, SEED, timesteps, preset).result[0]["samples"]
    return samples * model.model.latent_format.scale_factor


def test_x0_in_the_host_equals_diffusers(case, backbone, opened):
    text = backbone.encode([PROMPT])
    if text.mask is not None:
        assert 1 < text.mask.sum() < 60 and text.mask.shape[1] == 120
    x0 = in_the_host(case, opened[0], text)
    row = f"{case.kind.name} student trained here"
    error = relative_error(x0, in_diffusers(case, backbone, "ema", text)[-1])
    measured("loader", row, "x0, relative error", error, BAR)
    # The error of rounding the trainer's fp32 weights to the file's fp16.
    error = relative_error(x0, in_diffusers(case, backbone, "ema", text, half=False)[-1])
    measured("loader", row, "x0, rounding of the weights", error, 1e-3)
    for other in ("student", None):  # neither the last weights nor the teacher's
        assert relative_error(x0, in_diffusers(case, backbone, other, text)[-1]) > 2e-3


@pytest.mark.both_hosts
@pytest.mark.parametrize("case", parameters(LORAS), indirect=True)
def test_comfyuis_own_load_lora_gives_the_same_x0(case, backbone, opened, loader):
    """It drops the recipe, which has to be typed then; all other numbers are the student's, at each of its steps."""
    base = loader.execute("trained-base.safetensors").result[0]
    model = run_node("LoraLoaderModelOnly", model=base, lora_name="trained.safetensors", strength_model=1.0)
    text = backbone.encode([PROMPT])
    if (count := len(case.timesteps)) > 1:  # or chosen
        typed = in_the_host(case, model, text, timesteps=str(case.timesteps)[1:-1])
        assert torch.equal(in_the_host(case, model, text, preset=f"PG-SB, {count} steps"), typed)
    row, teachers = f"{case.kind.name} student trained here", in_diffusers(case, backbone, None, text)
    for number, expected in enumerate(in_diffusers(case, backbone, "ema", text), 1):
        x0 = in_the_host(case, model, text, timesteps=str(case.timesteps[:number])[1:-1])
        measured("loader", row, "x0 by Load LoRA, relative error", relative_error(x0, expected), BAR)
        assert relative_error(x0, teachers[number - 1]) > 2e-3
    other = str(case.timesteps[0] - 300)  # the timesteps matter, and nobody knows them any more
    assert relative_error(in_the_host(case, model, text, timesteps=other), expected) > 2e-3


def test_nasa_in_the_host_equals_diffusers(case, backbone, opened):
    text, negative = backbone.encode([PROMPT]), backbone.encode([NEGATIVE])
    x0 = in_the_host(case, opened[0], text, negative)
    error = relative_error(x0, in_diffusers(case, backbone, "ema", text, negative=negative)[-1])
    measured("loader", f"{case.kind.name} student trained here", "x0 with NASA, relative error", error, BAR)
    assert relative_error(x0, in_diffusers(case, backbone, "ema", text)[-1]) > 2e-3


def test_the_text_encoder_comes_along(case, backbone, opened):
    """For CLIP; T5 and SDXL's two are never in the file."""
    clip = opened[1]
    if case.kind.leaves_out_text:
        assert clip is None
        return
    got = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))[0][0]
    assert relative_error(got, backbone.encode([PROMPT]).states) <= BAR
