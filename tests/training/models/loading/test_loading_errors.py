"""Models that cannot be a teacher are refused before anything starts; the message says what they are and what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from published import NETWORK, published, save_folder, single_file_weights, write
from safetensors.torch import load_file, save_file

from training.models.loading import load_backbone


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_folder(tmp_path_factory.mktemp(kind), kind) for kind in ("sd15", "pixart")}


@pytest.mark.parametrize("path", ["nowhere", "models/nowhere.safetensors", "./a/b", "/no/such/model"])
def test_a_missing_path(path):
    with pytest.raises(FileNotFoundError, match=r"looked for /.*; expected a diffusers folder"):
        load_backbone(path)


def test_an_unavailable_hub_id():
    with pytest.raises(FileNotFoundError, match=r"looked for /.* and for models/nowhere on the hub") as caught:
        load_backbone("models/nowhere")
    assert "\n" not in str(caught.value)


def test_a_missing_text_encoder(folders):
    with pytest.raises(FileNotFoundError, match="no model at 'nowhere'"):
        load_backbone(folders["sd15"], text_encoder="nowhere")


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "unet",
            {"_class_name": "UNetFlatConditionModel"},
            "network is a UNetFlatConditionModel. Supported are",
        ),
        ("unet", {"addition_embed_type": "image"}, "its UNet has addition_embed_type 'image'. Supported are"),
        ("unet", {"time_cond_proj_dim": 256}, "takes its guidance scale as an input, such as an LCM"),
        ("unet", {"in_channels": 9}, "it has 9 input channels and 4 output channels, like models for inpainting"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "the VAE is 'AutoencoderTiny', expected AutoencoderKL"),
        ("text_encoder", {"model_type": "bert"}, "the text encoder is 'bert', expected one of clip_text_model, t5"),
        ("scheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True, which is not supported"),
        ("scheduler", {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2': Input should be"),
    ],
)
def test_unsupported_models(tmp_path, part, changes, message):
    folder = Path(save_folder(tmp_path, "sd15"))
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("transformer/config.json", {"sample_size": 128, "use_additional_conditions": None}, "PixArt at 1024 px"),
        ("transformer/config.json", {"_class_name": "SD3Transformer2DModel"}, "the network is a SD3Transformer2D"),
        ("model_index.json", {"_class_name": "PixArtSigmaPipeline"}, "it is PixArt-Sigma, which has other latents"),
    ],
)
def test_unsupported_transformers(tmp_path, path, changes, message):
    path = Path(save_folder(tmp_path, "pixart"), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        load_backbone(str(tmp_path))


def test_pickles(tmp_path):
    folder = Path(save_folder(tmp_path / "folder", "sd15"))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"vae has no .safetensors file; diffusion_pytorch_model.bin"):
        load_backbone(str(folder))
    torch.save(published("sd15")["network"].state_dict(), tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"model.ckpt is a pickle"):
        load_backbone(str(tmp_path / "model.ckpt"))


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_folder_with_a_missing_weight(tmp_path, part):
    """The libraries would fill it with random numbers without an error."""
    folder = Path(save_folder(tmp_path, "sd15"))
    (path,) = (folder / part).glob("*.safetensors")
    weights = load_file(path)
    gone = sorted(weights)[3]
    del weights[gone]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"{part}: 1 weight\(s\) of a \w+ are missing, first"):
        load_backbone(str(folder))


def test_a_folder_without_its_text_encoder(tmp_path):
    folder = save_folder(tmp_path, "sd15")
    shutil.rmtree(tmp_path / "text_encoder")
    with pytest.raises(ValueError, match=r"has no text_encoder; .* that has: teacher.text_encoder in a recipe"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop(NETWORK + "out.2.bias"),
            r"model.safetensors: weights .* in 1 place\(s\): missing",
        ),
        (lambda w: w.pop(NETWORK + "out.2.weight"), r"model.safetensors: missing 'out.2.weight'"),
        (lambda w: w.update({NETWORK + "label_emb.0.0.weight": torch.zeros(3)}), "Stable Diffusion XL"),
        (lambda w: w.update({"control_model.x": torch.zeros(3)}), r"1 weight\(s\) that do not belong to Stable Diff"),
        (lambda w: w.update({"ztsnr": torch.zeros(1)}), "its noise schedule ends in pure noise"),
        (lambda w: w.update({"alphas_cumprod": torch.linspace(1, 0, 1000)}), "its alphas_cumprod are not Stable"),
        (lambda w: w.update({"lora_unet_x.lora_down.weight": torch.zeros(3)}), "it is a LoRA"),
        (lambda w: w.pop(NETWORK + "input_blocks.0.0.weight"), "the network is unknown"),
    ],
)
def test_single_files(tmp_path, change, message):
    weights = single_file_weights("sd15")
    change(weights)
    with pytest.raises(ValueError, match=message):
        load_backbone(write(tmp_path / "model.safetensors", weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"csize_embedder.mlp.0.weight": (8, 8)}, "PixArt at 1024 px"),
        ({"y_embedder.y_embedding": (300, 64)}, r"takes 300 text tokens \(PixArt-Sigma: 300\)"),
        ({"pos_embed": (1, 4096, 72)}, "has 4096 positions, expected 1024"),
    ],
)
def test_single_files_of_unsupported_pixarts(tmp_path, folders, change, message):
    weights = single_file_weights("pixart") | {key: torch.zeros(shape) for key, shape in change.items()}
    with pytest.raises(ValueError, match=message):
        load_backbone(write(tmp_path / "model.safetensors", weights), t5=None, vae=folders["sd15"])
