"""Weights files as people have them: the dry run refuses what the run refuses, for the same reason."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from published import published, save_folder
from safetensors.torch import load_file, save_file

from training.models.loading import load_backbone
from training.models.loading.build import without_weights
from training.pgsb import main

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3438167536\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Path(save_folder(tmp_path_factory.mktemp("whole") / "sd15", "sd15"))


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "teacher"))


def weights(folder, part):
    (path,) = (folder / part).glob("*.safetensors")
    return path


def pointer(folder):
    weights(folder, "unet").write_bytes(LFS)


def pickles(folder):
    path = weights(folder, "vae")
    path.rename(path.with_suffix(".bin"))


def cut(folder):
    path = weights(folder, "text_encoder")
    path.write_bytes(path.read_bytes()[:-1000])


def missing_shard(folder):
    published("sd15")["network"].save_pretrained(folder / "unet", max_shard_size="50KB")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    sorted((folder / "unet").glob("*-of-*.safetensors"))[1].unlink()


def no_weights(folder):
    weights(folder, "unet").unlink()


def only_before_averaging(folder):
    path = weights(folder, "unet")
    path.rename(path.with_name("diffusion_pytorch_model.non_ema.safetensors"))


BROKEN = {
    pointer: r"unet: diffusion_pytorch_model.safetensors is a text file.*git-lfs pointer; download the model again",
    pickles: r"vae has no .safetensors file; diffusion_pytorch_model.bin could run code when opened, and is not read",
    cut: r"text_encoder: model.safetensors is damaged or cut short",
    missing_shard: r"unet: 1 of the \d+ weights files that .*index.json names are missing, first diffusion_py",
    no_weights: r"unet has no .safetensors file; download the model again",
    only_before_averaging: r"unet has no diffusion_pytorch_model.safetensors; it has diffusion_pytorch_model.non_ema.",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_the_dry_run_has_the_reasons_of_the_run(folder, damage, tmp_path, capsys):
    damage(folder)
    messages = []
    for described in (False, True):
        with pytest.raises((ValueError, OSError), match=BROKEN[damage]) as error:
            if described:
                with without_weights():
                    load_backbone(str(folder))
            else:
                load_backbone(str(folder))
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    words = [f"teacher.path={folder}", f"output.folder={tmp_path / 'run'}", "loop.latent_size=16", "--cpu", "--dry-run"]
    assert main(["--recipe", "shapes", *words]) == 2
    assert f"error: {messages[0]}" in capsys.readouterr().err


def test_a_missing_shard_of_the_first_weights_is_found_too(whole, folder):
    """student.init is read like the teacher."""
    cut(folder)
    pointer(folder)
    words = [f"teacher.path={whole}", f"student.init={folder}", "loop.latent_size=16", "--cpu", "--dry-run"]
    assert main(["--recipe", "shapes", *words]) == 2


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_half_precision_variants_are_read_if_there_are_no_others(folder, variant, tmp_path):
    expected = load_backbone(str(folder))
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    for part in ("unet", "vae", "text_encoder"):
        path = weights(folder, part)
        half = {name: weight.to(dtype) for name, weight in load_file(path).items()}
        save_file(half, path.with_name(f"{path.stem}.{variant}.safetensors"), metadata={"format": "pt"})
        path.unlink()
    got = load_backbone(str(folder))
    for part in ("network", "vae", "text_encoder"):
        ours, theirs = getattr(got, part).state_dict(), getattr(expected, part).state_dict()
        assert all(torch.equal(ours[name], weight.to(dtype).float()) for name, weight in theirs.items())
    with without_weights():
        load_backbone(str(folder))


def test_sharded_half_precision_weights_are_read(folder):
    path = weights(folder, "unet")
    path.unlink()
    network = published("sd15")["network"]
    network.save_pretrained(folder / "unet", max_shard_size="50KB", variant="fp16")
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").is_file()
    got = load_backbone(str(folder)).network.state_dict()
    assert all(torch.equal(got[name], weight) for name, weight in network.state_dict().items())


def test_prompts_are_cut_where_the_text_encoder_ends(folder, whole):
    """A tokenizer that claims more tokens than the encoder has positions, or knows no limit."""
    path = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    prompt = ["cat " * 300]
    expected = load_backbone(str(whole)).encode(prompt).states
    for limit in (8192, None):
        changed = {key: value for key, value in config.items() if key != "model_max_length"}
        path.write_text(json.dumps(changed | ({"model_max_length": limit} if limit else {})), encoding="utf-8")
        backbone = load_backbone(str(folder))
        assert backbone.max_tokens == 77
        assert torch.equal(backbone.encode(prompt).states, expected)
    path.write_text(json.dumps(config | {"model_max_length": 20}), encoding="utf-8")
    assert load_backbone(str(folder)).max_tokens == 20


def test_a_model_on_the_hub_with_half_precision_only(folder, tmp_path, monkeypatch):
    """In the hub's cache, as an earlier download left it; the second download takes what the first left out."""
    path = weights(folder, "unet")
    half = {name: weight.half() for name, weight in load_file(path).items()}
    snapshot = tmp_path / "models--tiny--half" / "snapshots" / "0123abc"
    (snapshot.parent.parent / "refs").mkdir(parents=True)
    (snapshot.parent.parent / "refs" / "main").write_text("0123abc")
    snapshot.parent.mkdir()
    folder.rename(snapshot)
    (snapshot / "unet" / path.name).unlink()
    asked = []

    def download(name, *, allow_patterns, ignore_patterns=()):
        asked.append(ignore_patterns)
        if "unet/*.safetensors" in allow_patterns and "*fp16*" not in ignore_patterns:
            save_file(half, snapshot / "unet" / f"{path.stem}.fp16.safetensors", metadata={"format": "pt"})
        return str(snapshot)

    monkeypatch.setattr("training.models.loading.find.snapshot_download", download)
    monkeypatch.setattr("training.models.loading.folder.snapshot_download", download)
    got = load_backbone("tiny/half").network.state_dict()
    assert all(torch.equal(got[name], weight.float()) for name, weight in half.items())
    assert all("*non_ema*" in patterns for patterns in asked if patterns)
