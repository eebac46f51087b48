import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from snoopi_core.formats.checkpoint import (
    FORMAT,
    FORMAT_KEY,
    MODEL_KEY,
    Checkpoint,
    CheckpointError,
    Metadata,
    OneStepRecipe,
    read_checkpoint,
    read_metadata,
    write_checkpoint,
)


def make(**changes):
    settings = {
        "title": "test",
        "role": "student",
        "prediction_type": "epsilon",
        "unet": {"in_channels": 4},
        "latent_scale": 0.18215,
        "recipe": OneStepRecipe(timesteps=(999,), alpha_T=0.6, sigma_T=0.8),
        **changes,
    }
    return Checkpoint(metadata=Metadata(**settings), unet={"out.weight": torch.arange(6.0).reshape(2, 3)})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_round_trip(path):
    checkpoint = make(recommended_alpha=0.8, latent_rgb_factors=((0.1, 0.2, 0.3),) * 4)
    write_checkpoint(path, checkpoint)
    back = read_checkpoint(path)
    assert back.metadata == checkpoint.metadata == read_metadata(path)
    assert back.vae is None and back.text_encoder is None
    assert torch.equal(back.unet["out.weight"], checkpoint.unet["out.weight"].half())
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file was left behind"


def test_nothing_is_written_when_a_weight_is_not_finite(path):
    write_checkpoint(path, make())
    before = path.read_bytes()
    bad = Checkpoint(metadata=make().metadata, unet={"out.weight": torch.tensor([1e6])})  # past fp16's 65,504
    with pytest.raises(CheckpointError, match=r"1 weight\(s\) are not finite as torch.float16.*nothing was written"):
        write_checkpoint(path, bad)
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    write_checkpoint(path, make())
    before = path.read_bytes()
    monkeypatch.setattr("snoopi_core.formats.atomic.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_checkpoint(path, make(title="other"))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_parts_need_weights_and_config(path):
    with pytest.raises(CheckpointError, match="vae needs both weights and config"):
        write_checkpoint(path, make(vae={"latent_channels": 4}))
    with pytest.raises(CheckpointError, match=r"expected a name that ends in \.safetensors"):
        write_checkpoint(path.with_suffix(".ckpt"), make())


class Bomb:
    """Leaves a trace if anything unpickles it."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_a_pickle_is_named_and_never_opened(tmp_path):
    for name, save in (
        ("a.ckpt", torch.save),
        ("b.safetensors", torch.save),
        ("c.safetensors", lambda o, p: p.write_bytes(pickle.dumps(o))),
    ):
        save({"x": Bomb()}, tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{name} is a pickle.*use the .safetensors version"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (0, r"is empty \(0 bytes\); download it again"),
        (7, "damaged or cut short"),
        (300, "damaged or cut short"),
        (-1, "damaged or cut short"),
    ],
)
def test_truncated(path, keep, expected):
    write_checkpoint(path, make())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=expected):
        read_checkpoint(path)


def test_header_length_bomb(path):
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_foreign_newer_and_broken(path):
    weights = {"model.diffusion_model.out.weight": torch.zeros(2)}
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"not one made by .*its header has no .snoopi.format"):
        read_checkpoint(path)
    model = make().metadata.model_dump_json()
    save_file(weights, path, metadata={FORMAT_KEY: str(FORMAT + 1), MODEL_KEY: model})
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}.*update SNOOPI"):
        read_checkpoint(path)
    save_file(weights, path, metadata={FORMAT_KEY: "x", MODEL_KEY: model})
    with pytest.raises(CheckpointError, match="expected a whole number"):
        read_checkpoint(path)
    save_file(weights, path, metadata={FORMAT_KEY: "1", MODEL_KEY: "[" * 100_000})
    with pytest.raises(CheckpointError, match="its metadata is invalid"):
        read_checkpoint(path)
    tree = json.loads(model)
    del tree["title"]
    tree["latent_scale"] = -1
    save_file(weights, path, metadata={FORMAT_KEY: "1", MODEL_KEY: json.dumps(tree)})
    with pytest.raises(CheckpointError, match=r"title: Field required.*latent_scale: "):
        read_checkpoint(path)


def test_weights_and_metadata_must_agree(path):
    header = {FORMAT_KEY: "1", MODEL_KEY: make().metadata.model_dump_json()}
    save_file({"first_stage_model.x": torch.zeros(1)}, path, metadata=header)
    with pytest.raises(CheckpointError, match=r"does not describe, first first_stage_model.x and no weights for unet"):
        read_checkpoint(path)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="is not a file"):
        read_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"timesteps": (249, 999), "alpha_T": 0.6, "sigma_T": 0.8}, "are not strictly decreasing"),
        ({"timesteps": (), "alpha_T": 0.6, "sigma_T": 0.8}, "at least 1 item"),
        ({"timesteps": (999,), "alpha_T": 0.6, "sigma_T": 0.7}, "expected 1"),
    ],
)
def test_recipes_are_checked(settings, expected):
    with pytest.raises(ValueError, match=expected):
        OneStepRecipe(**settings)
