"""Weights as the host keeps them: quantized, cast, of another pack's layers, offloaded, with a LoRA.

A negative's keys and values come from the layer's own forward at the time of the call, whatever its weight is.
The reference has the weights that the quantized ones stand for.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json

import comfy.model_patcher
import comfy.ops
import pytest
import torch
from comfy.patcher_extension import CallbacksMP
from effort import some
from families import CASES, Case, case
from families.contract import BAR, EFFECT, steer, subtract
from families.steps import lora_of, merged, with_lora
from figures import measured
from reference import relative_error

try:
    from comfy.quant_ops import QuantizedTensor, TensorWiseINT8Layout  # noqa: F401
except ImportError:  # older hosts
    QuantizedTensor = None

pytestmark = pytest.mark.host

# The references of PixArt and UNets are diffusers' networks, with weights of their own.
NAMES = ["Wan 2.1 I2V", *(name for name in CASES if name != "Wan 2.1 I2V" and not name.startswith(("PixArt", "UNet")))]


class Dequantizing(torch.nn.Module):
    """A layer as packs for GGUF files have: whole numbers and scales of rows, made to weights in each forward."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        self.scales = weight.abs().amax(1, keepdim=True) / 127
        self.numbers = (weight / self.scales).round().to(torch.int8)
        self.bias = layer.bias

    def weight_now(self) -> torch.Tensor:
        return self.numbers * self.scales

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight_now().to(x), self.bias)


def dequantizing(layer):
    stand_in = Dequantizing(layer)
    return stand_in, stand_in.weight_now()


def fp8(layer):
    """Weights in fp8, cast in each forward."""
    weight = layer.weight.detach().to(torch.float8_e4m3fn)
    stand_in = comfy.ops.manual_cast.Linear(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device="cpu", dtype=torch.float32
    )  # fmt: skip
    stand_in.weight, stand_in.bias = torch.nn.Parameter(weight, requires_grad=False), layer.bias
    return stand_in, weight.float()


def quantized(layer, settings, weight, scale, meaning):
    """The host's own layer for quantized files, loaded as from a file."""
    operations = comfy.ops.mixed_precision_ops(
        {}, torch.float32, disabled={"float8_e4m3fn", "int8_tensorwise"}
    )  # fmt: skip
    stand_in = operations.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="cpu")
    file = {
        "weight": weight, "weight_scale": scale,
        "comfy_quant": torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8),
    }  # fmt: skip
    if layer.bias is not None:
        file["bias"] = layer.bias.detach()
    stand_in.load_state_dict(file, strict=False)
    return stand_in.requires_grad_(False), meaning


def fp8_scaled(layer):
    weight = layer.weight.detach()
    scale = weight.abs().amax() / 448
    stored = (weight / scale).to(torch.float8_e4m3fn)
    return quantized(layer, {"format": "float8_e4m3fn"}, stored, scale, stored.float() * scale)


def int8_rotated(layer):
    """The host then rounds the layer's input as well, row by row."""
    layout = {"per_channel": True, "convrot": True, "convrot_groupsize": 16}
    weight = QuantizedTensor.from_float(layer.weight.detach(), "TensorWiseINT8Layout", **layout)
    settings = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 16}
    return quantized(layer, settings, weight._qdata, weight._params.scale, weight.dequantize())


KINDS = {"GGUF-like": dequantizing, "fp8": fp8}
if QuantizedTensor is not None:
    KINDS |= {"scaled fp8": fp8_scaled, "int8 convrot": int8_rotated}


def with_own_network(model):
    other = copy.copy(model)
    other._modules = {**model._modules, "diffusion_model": copy.deepcopy(model.diffusion_model)}
    return other


@functools.cache
def stored(name: str, kind: str) -> Case:
    """A case with such layers in the host, and with what they stand for in the reference."""
    original = case(name)
    model, plain = (with_own_network(original.patcher.model) for _ in range(2))
    network = model.diffusion_model
    for path, module in list(network.named_modules()):
        # In the blocks: the host keeps the others in full precision, too.
        if isinstance(module, torch.nn.Linear) and ("blocks." in path or "layers." in path):
            if module.in_features % 16:
                continue  # smaller than any quantized layer of a published model
            stand_in, meaning = KINDS[kind](module)
            parent, _, child = path.rpartition(".")
            setattr(network.get_submodule(parent), child, stand_in)
            plain.diffusion_model.get_submodule(path).weight.data.copy_(meaning)
    cpu = torch.device("cpu")
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patchers = [patcher_class(each, load_device=cpu, offload_device=cpu) for each in (model, plain)]
    return dataclasses.replace(original, patcher=patchers[0], reference=type(original.reference)(patchers[1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", some(NAMES, 1))
def test_quantized_weights(name, kind):
    subject = stored(name, kind)
    positive, negative = subject.condition(1), subject.condition(3, subject.more)
    got = subject.sample(steer(subject.patcher, negative), positive, positive, rows=2)
    expected = subject.expected(positive, [subtract(negative)], rows=2)
    unquantized = case(name).expected(positive, [subtract(negative)], rows=2)
    assert relative_error(expected, unquantized) > 1e-4, "nothing was rounded here"
    assert relative_error(subject.expected(positive, rows=2), expected) > EFFECT
    plain = relative_error(
        subject.sample(subject.patcher, positive, positive, rows=2), subject.expected(positive, rows=2)
    )
    # With a rounded input, the plain model is as far from the formula. Rounding depends on the values.
    bar = 1.5 * plain if "int8" in kind else BAR
    measured("composition", f"{kind} weights, {name}", "relative error", relative_error(got, expected), bar)


@pytest.mark.parametrize("name", some(NAMES, 1))
def test_a_lora_before_and_after_and_with_little_memory(name):
    subject = case(name)
    positive, negative = subject.condition(1), subject.condition(3)
    lora = lora_of(subject, 5)
    before = steer(with_lora(subject.patcher, lora), negative)
    after = with_lora(steer(subject.patcher, negative), lora)
    short = after.clone()
    short.add_callback(CallbacksMP.ON_PRE_RUN, lambda patcher: patcher.partially_unload(torch.device("cpu"), 1 << 40))
    got = subject.sample(before, positive, positive)
    with merged(subject, lora):
        expected = subject.expected(positive, [subtract(negative)])
        plain = relative_error(
            subject.sample(with_lora(subject.patcher, lora), positive, positive), subject.expected(positive)
        )
    assert relative_error(subject.expected(positive, [subtract(negative)]), expected) > EFFECT
    # On some processors the plain ACE-Step 1 is as far from the formula.
    bar = max(BAR, 2 * plain)
    measured("composition", f"LoRA, {name}", "relative error", relative_error(got, expected), bar)
    assert torch.equal(subject.sample(after, positive, positive), got)
    assert torch.equal(subject.sample(short, positive, positive), got)
