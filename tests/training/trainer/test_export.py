"""Exported files of each family give the same numbers in the host as in diffusers."""

import nodes as host_nodes
import pytest
import torch
from published import save_folder, single_file_weights, write
from reference import relative_error
from tiny import tiny_backbone, tiny_pixart_backbone, tiny_sd21_backbone, tiny_sdxl_backbone

from snoopi_core.formats.checkpoint import OneStepRecipe, read_checkpoint
from snoopi_core.formats.lora import find_lora_metadata
from snoopi_core.formats.tensor_file import open_tensor_file
from snoopi_core.host.loading.attachment import get_metadata
from snoopi_core.host.loading.loader import load_checkpoint
from snoopi_core.host.one_step import one_step
from training.config import Recipe
from training.distill.networks import make_student
from training.distill.noise_levels import NoiseLevels
from training.export import main
from training.models.sampling import one_step_x0
from training.trainer.distributed.state_dicts import trained_state
from training.trainer.export import check_exportable, export_backbone, export_student, with_load_lora

PROMPT = "a red ring, on the left"
SIZES = {"unet": 8, "sdxl": 8, "pixart": 64}
KINDS = {"sd15": tiny_backbone, "sd21": tiny_sd21_backbone, "sdxl": tiny_sdxl_backbone, "pixart": tiny_pixart_backbone}


def recipe_for(teacher="tiny/teacher", **student):
    student = {"timestep": 999, "lora_rank": 4, "lora_scaling": 8} | student
    output = {"title": "S", "recommended_alpha": 0.3}
    tree = {"teacher": {"path": teacher}, "student": student, "prompts": {"source": "shapes"}, "output": output}
    tree["loop"] = {"latent_size": 8}  # size of the images for fitting the preview colours
    return Recipe.model_validate(tree)


def as_in_the_file(network):
    """Weights rounded to half precision."""
    for weight in network.parameters():
        weight.data = weight.data.half().float()
    return network


def images(backbone, network, text, levels, recipe):
    """x0 by diffusers' network, for the host's noise of seed 5."""
    size = SIZES[backbone.family.name]
    z = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(5))
    settings = {"timestep": recipe.student.timestep, "alpha_T": levels.alpha_T, "sigma_T": levels.sigma_T}
    return one_step_x0(backbone, network, text, z, **settings)


def hosts_images(model, text, backbone):
    size, scale = SIZES[backbone.family.name], backbone.vae.config.scaling_factor
    latent = {"samples": torch.zeros(1, 4, size, size)}
    states = text.states if text.mask is None else text.states[:, : int(text.mask.sum())]
    more = {} if text.pooled is None else {"pooled_output": text.pooled}
    return one_step(model, [[states, more]], latent, seed=5, timesteps="auto")["samples"] * scale


@pytest.mark.host
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_student_makes_the_same_images_in_the_host(tmp_path, kind, prediction_type):
    backbone, recipe = KINDS[kind](prediction_type), recipe_for(alpha_T_squared=0.3)
    levels = NoiseLevels.from_schedule(backbone.alphas_cumprod(), recipe)
    weights = as_in_the_file(KINDS[kind](prediction_type, seed=7).network).state_dict()
    path = export_student(tmp_path / "student.safetensors", backbone, weights, recipe, 3)
    backbone.network.load_state_dict(weights)
    model, clip, vae = load_checkpoint(path)
    text = backbone.encode([PROMPT])
    got, expected = hosts_images(model, text, backbone), images(backbone, backbone.network, text, levels, recipe)
    assert relative_error(got, expected) <= 1e-4
    as_in_the_file(backbone.vae)
    latents = torch.randn(1, 4, 8, 8)
    assert (
        relative_error(
            vae.decode(latents / backbone.vae.config.scaling_factor).movedim(-1, 1), backbone.decode(latents)
        )
        <= 1e-4
    )
    metadata = get_metadata(model)
    assert metadata.recipe == OneStepRecipe(timesteps=(999,), alpha_T=levels.alpha_T, sigma_T=levels.sigma_T)
    assert (metadata.recommended_alpha, metadata.schedule) == (0.3, backbone.schedule)
    if kind in ("sdxl", "pixart"):
        assert clip is None and not any("cond_stage_model" in name for name in open_tensor_file(path).names)
    else:
        as_in_the_file(backbone.text_encoder)
        got = host_nodes.CLIPTextEncode().encode(clip, PROMPT)[0][0][0]
        assert relative_error(got, backbone.encode([PROMPT]).states) <= 1e-5


@pytest.mark.host
@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_student_makes_the_same_images_in_the_host(tmp_path, kind):
    backbone, recipe = KINDS[kind](), recipe_for(train="lora", alpha_T_squared=0.3)
    as_in_the_file(backbone.network)
    base = export_backbone(tmp_path / "base.safetensors", backbone, title="base", role="teacher")
    student = make_student(backbone.network, recipe)
    torch.manual_seed(0)
    for name, weight in student.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight).half().float() / 4
    weights = trained_state(student)
    path = export_student(tmp_path / "lora.safetensors", KINDS[kind](), weights, recipe, 3)
    model, _, _ = load_checkpoint(base, lora=path)
    levels, text = NoiseLevels.from_schedule(backbone.alphas_cumprod(), recipe), backbone.encode([PROMPT])
    expected = images(backbone, student.eval(), text, levels, recipe)
    assert relative_error(hosts_images(model, text, backbone), expected) <= 1e-4
    assert relative_error(expected, images(backbone, backbone.network, text, levels, recipe)) > 0.1
    metadata = find_lora_metadata(open_tensor_file(path))
    assert (metadata.title, metadata.base, metadata.family) == ("S", "tiny/teacher", backbone.family.file_family)
    assert metadata.recipe.timesteps == (999,) and metadata.provenance.recipe_sha256 == recipe.sha256()


def test_a_lora_names_its_base_without_local_paths(tmp_path):
    backbone = tiny_backbone()
    student = make_student(backbone.network, recipe_for(train="lora"))
    for teacher, changes, expected in [
        (str(tmp_path / "sd15"), {}, "sd15"),
        ("~/models/sd15", {}, "sd15"),
        ("owner/name", {}, "owner/name"),
        ("owner/name", {"init": "other/init"}, "other/init"),
    ]:
        recipe = recipe_for(teacher, train="lora", **changes)
        path = export_student(tmp_path / "lora.safetensors", backbone, trained_state(student), recipe, 1)
        assert find_lora_metadata(open_tensor_file(path)).base == expected


def test_a_lora_names_its_teachers_loras_and_hash(tmp_path):
    backbone, lora = tiny_backbone(), str(tmp_path / "style.safetensors")
    student = make_student(backbone.network, recipe_for(train="lora"))
    for init, expected in (("", (("style.safetensors:0.5",), "abc")), ("other/init", ((), ""))):
        recipe = recipe_for(train="lora", init=init)
        recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"loras": (f"{lora}:0.5",)})})
        weights, out = trained_state(student), tmp_path / "lora.safetensors"
        path = export_student(out, backbone, weights, recipe, 1, teacher_fingerprint="abc")
        about = find_lora_metadata(open_tensor_file(path))
        assert (about.base_loras, about.base_sha256) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 'type it into One-Step Sampler, timesteps "999", preset auto'),
        ({"timesteps": (999, 749, 499, 249)}, 'choose preset "PG-SB, 4 steps" in One-Step Sampler'),
        ({"timesteps": (999, 749)}, 'type it into One-Step Sampler, timesteps "999, 749", preset auto'),
        ({"alpha_T_squared": 0.0047}, "open it with PG-SB Loader only"),
    ],
)
def test_the_export_says_how_load_lora_is_used(tmp_path, changes, expected):
    backbone, recipe = tiny_backbone(), recipe_for(train="lora", **changes)
    weights = trained_state(make_student(backbone.network, recipe))
    path = export_student(tmp_path / "lora.safetensors", backbone, weights, recipe, 1)
    assert expected in with_load_lora(find_lora_metadata(open_tensor_file(path)))


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_a_folder_and_a_single_file_become_the_same_file_of_ours(tmp_path, kind):
    folder = save_folder(tmp_path / "folder", kind)
    single = write(tmp_path / "single.safetensors", single_file_weights(kind))
    for source, out in ((folder, "a.safetensors"), (single, "b.safetensors")):
        assert main([source, "--out", str(tmp_path / out), "--title", "T"]) == 0
    one, other = read_checkpoint(tmp_path / "a.safetensors"), read_checkpoint(tmp_path / "b.safetensors")
    for part in ("unet", "vae"):
        assert all(torch.equal(weight, getattr(other, part)[key]) for key, weight in getattr(one, part).items())
    assert one.metadata.pad_token_id == other.metadata.pad_token_id == (0 if kind == "sd21" else 49407)


def test_a_student_is_not_exported_again_as_a_teacher(pack_root, tmp_path, capsys):
    student, out = pack_root / "models" / "snoopi-avatars-student.safetensors", tmp_path / "out.safetensors"
    assert main([str(student), "--out", str(out)]) == 2
    assert "is an exported student, which PG-SB Loader opens as it is" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_pixart_becomes_a_file_without_t5(tmp_path):
    folder, out = save_folder(tmp_path / "folder", "pixart"), tmp_path / "a.safetensors"
    for path in (tmp_path / "folder" / "text_encoder").glob("*.safetensors"):
        path.unlink()  # not needed here; at full size, reading it would take 19 GB
    single = write(tmp_path / "single.safetensors", single_file_weights("pixart"))
    for source in ([folder], [single, "--vae", folder]):
        assert main([*source, "--out", str(out)]) == 0
        model = read_checkpoint(out)
        assert model.metadata.family == "pixart" and model.text_encoder is None and model.vae


def test_missing_models_are_reported(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.safetensors")]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: '{tmp_path}/nowhere' is no run folder, no checkpoint of a run and no model")
    assert "Expected a run folder such as runs/mine, one of its checkpoints, a diffusers folder" in message
    assert main(["runs/nowhere", "--out", str(tmp_path / "x.safetensors")]) == 2  # could be a hub id
    message = capsys.readouterr().err
    assert "'runs/nowhere' is no run folder, no checkpoint of a run and no model on this machine; no model" in message
    assert main([str(tmp_path), "--out", str(tmp_path / "x.ckpt")]) == 2
    assert "x.ckpt', expected the name of a file that ends in .safetensors" in capsys.readouterr().err
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "x.safetensors")]) == 2
    assert "run holds no usable checkpoint" in capsys.readouterr().err
    kept = tmp_path / "run" / "checkpoints" / "step-00000001"
    kept.mkdir()
    (kept / "state.json").write_text("{}", encoding="utf-8")
    for name in ("..", ".", "", "~nobody/step-00000001", "/elsewhere/step-00000001"):
        assert main([str(tmp_path / "run"), "--checkpoint", name, "--out", str(tmp_path / "x.safetensors")]) == 2
        assert f"no usable checkpoint {name!r}; available: step-00000001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("holds", "arguments", "message"),
    [
        (
            "",
            ["--checkpoint", "latest", "--teacher", "t"],
            "is a model, for which --checkpoint, --teacher has no effect",
        ),
        ("checkpoints/step-00000001/state.json", ["--title", "mine"], "is a run, for which --title has no effect"),
        ("state.json", ["--checkpoint", "latest"], "is a checkpoint of a run, for which --checkpoint has no effect"),
        ("", ["--alpha", "-1"], "--alpha is -1.0, expected a number from 0 on"),
        ("", ["--alpha", "nan"], "--alpha is nan, expected a number from 0 on"),
    ],
)
def test_arguments_without_effect_or_out_of_range_are_refused(tmp_path, capsys, holds, arguments, message):
    if holds:
        (tmp_path / holds).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / holds).touch()
    assert main([str(tmp_path), *arguments, "--out", str(tmp_path / "out.safetensors")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "part", "changes", "message"),
    [
        ("sd15", "network", {"norm_num_groups": 16}, "no UNet with these settings: norm_num_groups is 16, expected 32"),
        ("sd15", "vae", {"norm_num_groups": 16}, "no VAE with these settings: norm_num_groups is 16, expected 32"),
        ("sd15", "vae", {"latent_channels": 16}, "the VAE has 16 latent channels, the network takes 4"),
        ("pixart", "network", {"patch_size": 4}, "no PixArt with these settings: patch_size is 4, expected 2"),
        ("pixart", "network", {"sample_size": 32}, "PixArt sample_size is 32, expected a whole number from 33"),
    ],
)
def test_networks_that_the_host_cannot_build_are_refused_before_a_run(kind, part, changes, message):
    backbone = KINDS[kind]()
    getattr(backbone, part).register_to_config(**changes)
    with pytest.raises(ValueError, match=message):
        check_exportable(backbone)
