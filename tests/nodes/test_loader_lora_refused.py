"""PG-SB Loader: LoRAs that cannot be applied are refused with the reason."""

from __future__ import annotations

import json

import pytest
import torch
from exports import export
from loras import ALPHA, adapter_settings, kohya, lora_metadata, renamed, with_adapters
from safetensors.torch import load_file, save_file

from snoopi_core.formats.lora import adapters_from_peft, write_lora

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def base(folder):
    """The bundled kind of model, in the checkpoints folder, and its UNet in diffusers."""
    return export(folder / "base.safetensors").network


def refuse(loader, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        loader.execute("base.safetensors", name)
    assert name in str(caught.value)


def test_keys_that_match_nothing_are_counted_and_named(base, loras, loader):
    tensors = kohya(with_adapters(base)[1])
    for n in range(7):
        tensors[f"lora_unet_up_blocks_9_attentions_{n}.lora_up.weight"] = torch.zeros(2, 2)
    save_file(tensors, loras / "odd.safetensors")
    refuse(loader, "odd.safetensors", r"odd.safetensors: 7 of its \d+ keys match no weight .*; and 2 more")


def test_a_lora_of_another_size(base, loras, loader):
    tensors = {
        key: torch.zeros([2 * n for n in w.shape]) if w.ndim else w for key, w in kohya(with_adapters(base)[1]).items()
    }
    save_file(tensors, loras / "size.safetensors")
    refuse(
        loader,
        "size.safetensors",
        r"trained on another base model: .*up \(64, 8\) and down \(8, 64\), expected",
    )


def test_a_lora_for_another_family(base, loras, loader):
    _, weights = with_adapters(base)
    path = write_lora(loras / "family.safetensors", lora_metadata(), adapters_from_peft(weights), alpha=ALPHA)
    header = {"snoopi.format": "1", "snoopi.lora": lora_metadata(family="pixart").model_dump_json()}
    save_file(load_file(path), path, metadata=header)
    refuse(loader, "family.safetensors", "trained on a pixart network, this model is a unet network")


def test_half_a_pair(base, loras, loader):
    tensors = kohya(with_adapters(base)[1])
    del tensors[next(key for key in tensors if "lora_down" in key)]
    save_file(tensors, loras / "half.safetensors")
    refuse(loader, "half.safetensors", "a part is missing")


@pytest.mark.parametrize("alpha", [torch.ones(3), torch.tensor(float("nan")), torch.zeros(0)])
def test_a_strength_that_is_not_a_number(base, loras, loader, alpha):
    tensors = kohya(with_adapters(base)[1])
    tensors[next(key for key in tensors if key.endswith(".alpha"))] = alpha
    save_file(tensors, loras / "alpha.safetensors")
    refuse(loader, "alpha.safetensors", r"alpha is .* expected one finite number")


def test_a_lora_that_changes_sizes(base, loras, loader):
    tensors = kohya(with_adapters(base)[1])
    tensors["lora_unet_down_blocks_0.reshape_weight"] = torch.zeros(2)
    save_file(tensors, loras / "reshape.safetensors")
    refuse(loader, "reshape.safetensors", "it reshapes 1 weight")


def test_other_adapters(base, loras, loader):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = {
        f"{name}.hada_w{n}_{side}": torch.zeros(32, 2) if side == "a" else torch.zeros(2, 32)
        for n in (1, 2)
        for side in "ab"
    }
    save_file(parts, loras / "loha.safetensors")
    refuse(loader, "loha.safetensors", "an adapter of kind LoHaAdapter; the host's own Load LoRA node")


@pytest.mark.parametrize(
    "settings", ["[", "[]", json.dumps({"unet.lora_alpha": "x"}), '{"unet.lora_alpha": NaN}', "[" * 5000]
)
def test_settings_that_cannot_be_read(base, loras, loader, settings):
    tensors = renamed(with_adapters(base)[1], "unet.")
    save_file(tensors, loras / "bad.safetensors", metadata={"lora_adapter_metadata": settings})
    refuse(loader, "bad.safetensors", "its lora_adapter_metadata cannot be read")


def test_settings_of_another_kind(base, loras, loader):
    tensors = renamed(with_adapters(base)[1], "unet.")
    header = {"lora_adapter_metadata": adapter_settings("unet.", use_rslora=True)}
    save_file(tensors, loras / "rs.safetensors", metadata=header)
    refuse(loader, "rs.safetensors", "sets unet.use_rslora, which only diffusers supports")


def test_a_checkpoint_in_the_wrong_folder(base, loras, loader, folder):
    (loras / "whole.safetensors").write_bytes((folder / "base.safetensors").read_bytes())
    refuse(loader, "whole.safetensors", "keys match no weight")


def test_a_pickle_with_a_wrong_name(base, loras, loader):
    torch.save({"weight": torch.zeros(2)}, loras / "pickle.safetensors")
    refuse(loader, "pickle.safetensors", "is a pickle .* so it was not opened")


def test_an_empty_file(base, loras, loader):
    save_file({}, loras / "empty.safetensors")
    refuse(loader, "empty.safetensors", "it contains no weights")
