"""Estimates: compared with real runs of small models, and for the shipped recipes at full size."""

import gc
import re

import pytest
import torch
from full_size_folders import write_description
from published import KINDS, save_folder
from tiny_clip import write_tiny_clip
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.config import ROOT, load_recipe, recipe_names
from training.distill.networks import trainable
from training.distill.noise_levels import NoiseLevels
from training.distill.rng import draw, fresh_batches
from training.models.loading import load_backbone, load_teacher
from training.models.loading.build import without_weights
from training.pgsb import main
from training.trainer.build import build_trainer, open_teacher
from training.trainer.distributed.accelerator import start_accelerator
from training.trainer.estimate import Estimate, estimate
from training.trainer.estimate.iteration import meta_text
from training.trainer.estimate.ledger import AsOnCuda, Ledger

GIB = 2**30


# Stable Diffusion 2.1's network is nearly 1.5's.
@pytest.fixture(
    scope="module",
    params=["sd15", "pixart", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("sd21", "sdxl"))],
)
def teacher(request, tmp_path_factory):
    return save_folder(tmp_path_factory.mktemp("teachers") / request.param, request.param)


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    return save_folder(tmp_path_factory.mktemp("teacher") / "sd15", "sd15")


def small(teacher, *overrides):
    side = 34 if teacher.endswith("pixart") else 16  # smaller ones are refused
    settings = ["clip.weight=0", "loop.batch_size=4", "loop.precision=no", f"loop.latent_size={side}", "student.init="]
    return load_recipe("sd15", [f"teacher.path={teacher}", "prompts.source=shapes", *settings, *overrides])


def estimated(recipe, **options) -> Estimate:
    with without_weights():
        if recipe.prompts.text_cache:  # like a run with its cache, which need not exist for the estimate
            backbone = load_teacher(recipe.teacher, t5=None)
            levels = NoiseLevels.from_schedule(backbone.alphas_cumprod(), recipe)
        else:
            backbone, levels = open_teacher(recipe)
    return estimate(recipe, backbone, levels, **options)


def activations(found):
    return next(size for part, size in found.memory.items() if part.startswith("activations"))


def test_the_ledger_counts_live_memory():
    weight = torch.empty(16, 8, device="meta", requires_grad=True)
    with Ledger() as ledger:
        x = torch.empty(4, 8, device="meta")
        y = functional.linear(x, weight).relu()  # the linear's own output is not needed for the backward pass
        assert ledger.live == 4 * (4 * 8 + 4 * 16)
        assert ledger.peak == 4 * (4 * 8 + 2 * 4 * 16)
        y.view(64).sum().backward()
        assert ledger.live >= 4 * weight.numel(), "the gradient"
        del x, y
        gc.collect()
        assert ledger.live == 4 * weight.numel()
    assert ledger.flops == 2 * (2 * 4 * 8 * 16)  # the product, and the weight's gradient


@pytest.mark.parametrize("checkpointed", [False, True])
def test_nothing_on_the_meta_device_differs_from_a_real_network(teacher, checkpointed):
    """The same forward and backward, counted on the CPU and on the meta device, with attention as plain products."""

    def counted(network, device):
        network.requires_grad_(True).to(device)
        family = backbone.family
        if checkpointed:
            network.enable_gradient_checkpointing()
        x, t = torch.zeros(2, 4, 16, 16, device=device), torch.zeros(2, dtype=torch.long, device=device)
        words = text(backbone, device)
        with sdpa_kernel(SDPBackend.MATH), Ledger() as ledger:
            family.call(network, x, t, words).mean().backward()
        return ledger.peak, ledger.flops

    def text(backbone, device):
        words = meta_text(backbone, 2)
        return type(words)(
            states=torch.zeros(words.states.shape, device=device),
            mask=None if words.mask is None else torch.ones(words.mask.shape, dtype=torch.bool, device=device),
            pooled=None if words.pooled is None else torch.zeros(words.pooled.shape, device=device),
        )

    backbone = load_backbone(teacher)
    real = counted(backbone.network, torch.device("cpu"))
    with without_weights():
        described = load_backbone(teacher).network
    peak, flops = counted(described, torch.device("meta"))
    assert flops == real[1]
    assert peak == pytest.approx(real[0], rel=0.02)


LORA = ("student.train=lora", "lora.updates=3", "loop.gradient_checkpointing=false")
TWO_STEPS = ("student.timesteps=999,499", "student.step_weights=[1, 3]", "lora.updates=2", "lora.batches=fresh")
THREE_STEPS = ("student.timesteps=999,749,499", "student.step_gradient=all")


RUNS = [("sd15", ()), ("pixart", TWO_STEPS)]
MORE = [*((kind, LORA) for kind in KINDS), ("sd21", ()), ("pixart", ()), ("sd15", THREE_STEPS)]


@pytest.mark.parametrize(
    ("teacher", "overrides"), RUNS + [pytest.param(*run, marks=pytest.mark.full) for run in MORE], indirect=["teacher"]
)
def test_the_estimate_matches_a_run(teacher, tmp_path, overrides, monkeypatch):
    """Parameters, their bytes, and torch's own count of operations in the trainer's own iteration."""
    recipe = small(teacher, "loop.micro_batch=2", f"output.folder={tmp_path}", *overrides)
    found, run = estimated(recipe), build_trainer(recipe, start_accelerator(recipe, cpu=True))
    d, backbone = run.distillation, run.backbone
    assert found.trained == {
        "student": sum(weight.numel() for weight in trainable(d.student)),
        "LoRA teacher": sum(weight.numel() for weight in d.teachers.lora_parameters()),
    }
    lasting = {
        id(weight): weight
        for network in (d.student, d.lora_teacher, backbone.text_encoder, backbone.vae)
        for weight in network.parameters()
    }
    told = sum(size for part, size in found.memory.items() if part.startswith(("trained", "frozen")))
    assert told == sum(weight.numel() * weight.element_size() for weight in lasting.values())
    assert found.memory["EMA of the student"] == sum(mean.nbytes for mean in run.ema.means)

    prompts, device = run.prompts.take(4), torch.device("cpu")
    text = backbone.encode(prompts)
    weights = recipe.student.step_weights or [1] * len(recipe.student.steps)
    total = 0.0
    with sdpa_kernel(SDPBackend.MATH):
        with monkeypatch.context() as patch:
            patch.setattr(AsOnCuda, "_ATTENTION", None)
            as_products = estimated(recipe).flops
        for step, weight in enumerate(weights):
            draws = draw(recipe, 0, channels=4, num_train_timesteps=1000, step=step).rows(slice(0, 4), device)
            with FlopCounterMode(display=False) as counter:
                d.run(prompts, text, draws, fresh=[text] * fresh_batches(recipe))
            total += weight * counter.get_total_flops() / sum(weights)
    assert as_products == pytest.approx(total, rel=1e-3)
    # fused attention computes its scores once more in the backward pass
    assert as_products <= found.flops <= 1.1 * as_products


@pytest.mark.full
def test_settings_change_the_estimate(sd15, tmp_path):
    base = estimated(small(sd15))

    def ratio(part, *overrides, **options):
        return estimated(small(sd15, *overrides), **options).memory.get(part, 0) / base.memory[part]

    assert ratio("moments of adamw", "loop.optimizer=adamw8bit") == 0  # has another name
    eight_bit = estimated(small(sd15, "loop.optimizer=adamw8bit")).memory["moments of adamw8bit"]
    assert 0.25 < eight_bit / base.memory["moments of adamw"] < 0.4  # its many small weights keep 32-bit moments
    assert ratio("EMA of the student", "student.ema_decay=0") == 0
    assert ratio("frozen: teacher", "loop.precision=bf16") == 0.5
    assert ratio("trained weights, fp32", "student.train=lora", "student.lora_rank=4") < 0.3
    shared = estimated(small(sd15, "student.train=lora"))
    apart = estimated(small(sd15, "student.train=lora", f"student.init={sd15}"))
    assert "frozen: student" not in shared.memory
    assert apart.memory["frozen: student"] == shared.memory["frozen: teacher"]
    both = estimated(small(sd15), processes=2)
    assert both.flops == base.flops / 2
    assert both.memory["gradient buckets of DDP"] == base.memory["trained weights, fp32"]
    assert estimated(small(sd15), cuda=False).total == base.total - base.memory["CUDA context (assumed)"]
    beside = estimated(small(sd15, "output.background_save=true"), cuda=False)
    saved = ("trained weights, fp32", "moments of adamw", "EMA of the student")
    assert beside.memory["a checkpoint being written"] == sum(base.memory[part] for part in saved)


@pytest.mark.full
def test_activations_depend_on_rows_and_checkpointing(sd15):
    rows = [activations(estimated(small(sd15, f"loop.micro_batch={n}"))) for n in (1, 2, 4)]
    assert rows[2] - rows[1] == pytest.approx(2 * (rows[1] - rows[0]), rel=0.1)
    kept = estimated(small(sd15, "loop.gradient_checkpointing=false"))
    repeated = estimated(small(sd15))
    assert activations(kept) > activations(repeated) and kept.flops < repeated.flops
    nasa = estimated(small(sd15, "student.nasa_alpha_max=1"))
    assert repeated.flops < nasa.flops < 1.1 * repeated.flops


def test_clip_and_its_decoder_are_counted(sd15, tmp_path):
    clip = write_tiny_clip(tmp_path / "clip")
    off = estimated(small(sd15))
    on = estimated(small(sd15, "clip.weight=1", f"clip.model=local-dir:{clip}"))
    assert on.memory["frozen: CLIP and its decoder"] > 0 and on.flops > off.flops


def test_autocast_casts_as_on_cuda():
    x = torch.empty(2, 32, 8, 8, device="meta")
    weight = torch.nn.Parameter(torch.empty(32, 32, 1, 1, device="meta"))
    with Ledger() as ledger, AsOnCuda(ledger, half=True) as mode, mode.autocast():
        y = functional.conv2d(x, weight)
        assert y.dtype == torch.bfloat16
        assert functional.group_norm(y, 4).dtype == torch.float32
        assert (y + 1).dtype == torch.bfloat16
        alive = ledger.live
        functional.conv2d(y, weight)
        gc.collect()
        assert ledger.live == alive, "the weight is cast once"


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("gb") and "lora" not in name])
def test_low_memory_recipes_fit(tmp_path, name):
    """At full size, with 5 % of memory unused; cached prompts need no text encoder."""
    kind, size = name.split("_")[0], int(name.split("_")[1].removesuffix("gb"))
    folder = write_description(tmp_path / kind, kind)
    recipe = load_recipe(name, [f"teacher.path={folder}", "prompts.source=shapes"])
    if recipe.student.init:
        recipe = recipe.model_copy(update={"student": recipe.student.model_copy(update={"init": folder})})
    found = estimated(recipe)
    assert 0.2 * size * GIB < found.total < 0.95 * size * GIB
    assert found.trained["LoRA teacher"] > 5e6


def memory_of_loras():
    """What docs/YOUR_OWN_LORA.md tells of each recipe: GB of the card, and GiB that are needed."""
    page = (ROOT / "docs" / "YOUR_OWN_LORA.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| .*? \| (\d+) GB \| ([\d.]+) GiB", page, re.M)
    return {name: (int(card), float(needed)) for names, card, needed in rows for name in re.findall(r"\w+", names)}


def test_the_page_about_loras_has_every_recipe():
    assert sorted(memory_of_loras()) == [name for name in recipe_names() if "lora_" in name]


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in memory_of_loras() if "4step" in name])
def test_recipes_of_loras_need_what_the_page_says(tmp_path, name):
    """At full size, with 5 % of memory unused; SDXL's for 24 GB fits 16 GB, too."""
    card, needed = memory_of_loras()[name]
    folder = write_description(tmp_path / "teacher", name.partition("_")[0])
    found = estimated(load_recipe(name, [f"teacher.path={folder}", "prompts.source=shapes"]))
    assert round(found.total / GIB, 1) == needed < 0.95 * (16 if name == "sdxl_lora_4step" else card)


def test_models_without_weights_have_the_same_parts(teacher):
    loaded = vars(load_backbone(teacher))
    with without_weights():
        described = vars(load_backbone(teacher))
    for name in ("network", "text_encoder", "vae"):
        weights = {key: (value.shape, value.dtype) for key, value in loaded[name].state_dict().items()}
        assert {key: (value.shape, value.dtype) for key, value in described[name].state_dict().items()} == weights
        assert all(parameter.is_meta and not parameter.requires_grad for parameter in described[name].parameters())
    assert described["schedule"] == loaded["schedule"]
    assert not any(parameter.is_meta for parameter in load_backbone(teacher).network.parameters())


@pytest.mark.parametrize(
    ("recipe", "figures"),
    [
        ("sd15_12gb", ("LoRA teacher  6.4 M trained", "teacher       859.5 M frozen")),
        pytest.param(
            "sdxl_lora_4step",
            ("46.4 M trained", "2,567.5 M frozen", "student  4 steps, at timesteps 999, 749, 499, 249"),
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_dry_run_reads_no_weight_and_writes_nothing(tmp_path, monkeypatch, capsys, recipe, figures):
    folder = write_description(tmp_path / "teacher", recipe.partition("_")[0])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cat\n", encoding="utf-8")
    words = ["--recipe", recipe, f"teacher.path={folder}", "prompts.source=prompts.txt", "--dry-run", "--cpu"]
    assert main([*words, "clip.weight=0", "loop.micro_batch=1", "prompts.text_cache="]) == 0
    out = capsys.readouterr().out
    for expected in (
        "[guidance]",
        'train = "lora"',
        *figures,
        "activations, 1 row(s) at once",
        "TFLOP per iteration",
        f"files below runs/{recipe}",
        "checkpoints/ ",
    ):
        assert expected in out, out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt", "teacher"]
