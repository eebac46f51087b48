"""Weights that change after the model was loaded: the negative's keys and values use the current weights."""

from __future__ import annotations

import comfy.sd
import pytest
import torch
from comfy.model_patcher import LowVramPatch
from comfy.patcher_extension import CallbacksMP
from composed import POSITIVE, T, assert_close_to_exact, assert_identical, prompt, sampled, steer, subject, subtractions
from host_nodes import run_node
from reference import Reference, relative_error
from safetensors.torch import save_file
from unets import case, case_of, conditioning, noise, random_unet

pytestmark = pytest.mark.host

LAYERS = [  # the layers of one cross-attention that LoRAs usually train
    f"down_blocks.1.attentions.0.transformer_blocks.0.attn2.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")
]
STRENGTH = 0.8


def factors() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A low-rank change for each of LAYERS: down (4, C) and up (C', 4)."""
    unet, generator = random_unet("sd15"), torch.Generator().manual_seed(4)
    sizes = {name: unet.get_submodule(name).weight.shape for name in LAYERS}
    return {
        name: (0.2 * torch.randn(4, wide, generator=generator), 0.2 * torch.randn(high, 4, generator=generator))
        for name, (high, wide) in sizes.items()
    }


def lora_file() -> dict[str, torch.Tensor]:
    file = {}
    for name, (down, up) in factors().items():
        key = f"lora_unet_{name.replace('.', '_')}"
        file |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(4.0)}
    return file


def with_lora(patcher):
    return comfy.sd.load_lora_for_models(patcher, None, lora_file(), STRENGTH, 0.0)[0]


def merged_unet():
    unet = random_unet("sd15")
    for name, (down, up) in factors().items():
        unet.get_submodule(name).weight += STRENGTH * (up @ down)
    return unet


def expected(unet) -> torch.Tensor:
    return Reference(unet, "epsilon").x0(noise(), T, prompt(POSITIVE), subtractions())


def check(what, got, unet):
    exact = expected(unet)
    assert relative_error(sampled(steer(subject().patcher)), exact) > 1e-4, f"{what} changes nothing here"
    assert_close_to_exact(what, relative_error(got, exact))


@pytest.mark.both_hosts
def test_a_lora_before_and_after():
    got = sampled(with_lora(steer(subject().patcher)))
    assert_identical("LoRA", "the other order", got, sampled(steer(with_lora(subject().patcher))))
    check("LoRA", got, merged_unet())


def test_a_merged_lora():
    check("LoRA, merged", sampled(steer(case_of(merged_unet()).patcher)), merged_unet())


@pytest.mark.both_hosts
def test_a_lora_as_a_hook(host_base):
    """A LoRA for the positive prompt only; NASA's negative uses the same weights, since it runs in the same call."""
    folder = host_base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(lora_file(), folder / "hook.safetensors")
    hooks = run_node(
        "nodes_hooks.CreateHookLora", lora_name="hook.safetensors", strength_model=STRENGTH, strength_clip=0.0
    )
    positive = run_node(
        "nodes_hooks.ConditioningSetProperties",
        cond_NEW=conditioning(prompt(POSITIVE)),
        strength=1.0,
        set_cond_area="default",
        hooks=hooks,
    )
    steered = steer(subject().patcher)
    check("LoRA, as a hook", sampled(steered, positive), merged_unet())
    # With guidance: prompts with and without the hook run in separate calls.
    without = sampled(steered, cfg=2.0)
    assert not torch.equal(sampled(steered, positive, cfg=2.0), without)
    assert_identical("LoRA, as a hook", "the model before it, afterwards", sampled(steered, cfg=2.0), without)


def test_low_vram():
    """Most weights are not on the device; the LoRA is applied when they are cast."""

    def unload(patcher):
        patcher.partially_unload(patcher.offload_device, patcher.model_size())
        modules = patcher.model.diffusion_model.modules()
        found.extend(f for m in modules for f in getattr(m, "weight_function", ()) if isinstance(f, LowVramPatch))

    found = []
    steered = steer(with_lora(subject().patcher))
    loaded = sampled(steered)
    short = steered.clone()
    short.add_callback(CallbacksMP.ON_PRE_RUN, unload)
    got = sampled(short)
    assert len(found) == len(LAYERS), "the host did not leave the LoRA to low-VRAM patches"
    assert_identical("Low VRAM, with a LoRA", "all weights loaded", got, loaded)
    check("Low VRAM, with a LoRA", got, merged_unet())


RATIO = 0.3
MERGES = {
    "ModelMergeSimple": {"ratio": RATIO},
    "ModelMergeBlocks": {"input": RATIO, "middle": 1.0, "out": RATIO},
}


@pytest.mark.parametrize("name", MERGES)
def test_merged_models(name):
    other = case("sd15", seed=1)

    def merge(patcher):
        return run_node(f"nodes_model_merging.{name}", model1=patcher, model2=other.patcher, **MERGES[name])

    got = sampled(merge(steer(subject().patcher)))
    assert_identical(name, "the other order", got, sampled(steer(merge(subject().patcher))))
    unet, second = random_unet("sd15"), dict(random_unet("sd15", seed=1).named_parameters())
    for key, weight in unet.named_parameters():
        ratio = MERGES[name].get("middle", RATIO) if key.startswith("mid_block.") else RATIO
        weight.copy_(ratio * weight + (1 - ratio) * second[key])
    check(name, got, unet)


def test_merging_keeps_the_first_models_negative():
    """The host merges weights, and keeps only the first model's patches and settings."""
    first, other = steer(subject().patcher), case("sd15", seed=1).patcher
    merged, again = (
        run_node("nodes_model_merging.ModelMergeSimple", model1=first, model2=second, ratio=RATIO)
        for second in (other, steer(other, prompt(8)))
    )
    assert_identical("ModelMergeSimple, both steered", "the first steered", sampled(again), sampled(merged))
