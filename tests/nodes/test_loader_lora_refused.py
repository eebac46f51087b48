"""PG-SB Loader: LoRAs that cannot be applied are refused with the reason."""

from __future__ import annotations

import json

import pytest
import torch
from exports import export, pixart_export
from host_nodes import run_node
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


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LOAD_LORA = "Set lora_name to none, and put ComfyUI's Load LoRA node after PG-SB Loader"
EMBEDDING = {"bundle_emb.thing.string_to_param.*": torch.zeros(1, 32)}
# Adapters of other kinds: what is added to a plain LoRA, and what the message says. The last value is whether the
# host's node opens it, as the message claims.
ODD = {
    "LoHa": (
        {f"{LAYER}.hada_w{n}_{side}": torch.ones((32, 2) if side == "a" else (2, 32)) for n in (1, 2) for side in "ab"},
        rf"it is not a plain LoRA: 1 of its 1 parts are LoHa, .*\. {LOAD_LORA}$",
        True,
    ),
    "LoKr": (
        {f"{LAYER}.lokr_w{n}": torch.ones(shape) for n, shape in ((1, (2, 2)), (2, (16, 16)))},
        f"1 of its 1 parts are LoKr, .*{LOAD_LORA}$",
        True,
    ),
    "DoRA": (
        {f"{LAYER}.dora_scale": torch.ones(32, 1)},
        rf"it is not a plain LoRA: 1 of its \d+ parts are DoRA, .*{LOAD_LORA}$",
        True,
    ),
    "DoRA of peft": (
        {f"{LAYER}.lora_magnitude_vector": torch.ones(32)},
        "it is a DoRA as peft saves it, with 1 lora_magnitude_vector, .*ComfyUI cannot read these: convert the file",
        False,
    ),
    "embedding": (
        EMBEDDING,
        r"1 of its \d+ keys are embeddings for prompts \(textual inversion\), which are no part of a LoRA: bundle_emb.*"
        f"{LOAD_LORA}, with PG-SB Loader's MODEL and CLIP; for its embeddings, copy the file into models/embeddings",
        True,
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_other_adapters(base, loras, loader, kind):
    added, message, host_opens_it = ODD[kind]
    plain = {} if kind in ("LoHa", "LoKr") else kohya(with_adapters(base)[1])
    save_file({**plain, **added}, loras / "odd.safetensors")
    refuse(loader, "odd.safetensors", message)
    if host_opens_it:
        model, clip, _ = loader.execute("base.safetensors").result
        patched = run_node("LoraLoader", model=model, clip=clip, lora_name="odd.safetensors",
                           strength_model=1.0, strength_clip=1.0)[0]  # fmt: skip
        assert patched.patches


@pytest.mark.parametrize("more", [{}, EMBEDDING])
def test_text_encoder_keys_for_a_file_without_text_encoder(folder, loras, loader, more):
    pixart_export(folder / "no_text.safetensors")
    names = ("lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc2")
    keys = {f"{name}.lora_{side}.weight": torch.ones(2, 2) for name in names for side in ("up", "down")}
    save_file({**keys, **more}, loras / "text.safetensors")
    reason = r"4 of its . keys change the text encoder, which this checkpoint does not contain"
    with pytest.raises(ValueError, match=reason) as e:
        loader.execute("no_text.safetensors", "text.safetensors")
    assert f"{LOAD_LORA}, with the CLIP of your CLIP loader" in str(e.value) and "trained on" not in str(e.value)
    assert ("copy the file into models/embeddings" in str(e.value)) == bool(more)


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
    refuse(loader, "rs.safetensors", "sets unet.use_rslora, which ComfyUI cannot read: merge it")


def test_a_checkpoint_in_the_wrong_folder(base, loras, loader, folder):
    (loras / "whole.safetensors").write_bytes((folder / "base.safetensors").read_bytes())
    refuse(loader, "whole.safetensors", "keys match no weight")


def test_a_pickle_with_a_wrong_name(base, loras, loader):
    torch.save({"weight": torch.zeros(2)}, loras / "pickle.safetensors")
    refuse(loader, "pickle.safetensors", "is a pickle .* so it was not opened")


def test_an_empty_file(base, loras, loader):
    save_file({}, loras / "empty.safetensors")
    refuse(loader, "empty.safetensors", "it contains no weights")
