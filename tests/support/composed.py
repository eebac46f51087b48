"""One model with NASA Apply and other nodes, computed three ways: by the node, by a simple implementation on the host's
network in fp64, and by the formulas of `reference`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.model_patcher import ModelPatcher
from figures import measured
from host_nodes import run_node
from reference import Condition, Subtraction
from unets import Case, case, conditioning, empty_latent, host_sample, random_unet, stock_model

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

ALPHA = 0.5
T = 999  # the timestep of a one-step sampling run
TOLERANCE = 3e-6  # relative error of fp32; measured: up to 1.6e-6 on one kind of processor, 2.3e-6 on another
GUIDED = 4e-6  # for guiders, which combine predictions; measured: up to 1.3e-6 and 2.4e-6
POSITIVE, UNCONDITIONAL, UNWANTED = 1, 2, 3  # seeds of the prompts


def subject() -> Case:
    return case("sd15")


def prompt(seed: int, tokens: int = 77) -> Condition:
    return subject().condition(seed, tokens)


def steer(patcher: ModelPatcher, unwanted: Condition | None = None, **changes: Any) -> ModelPatcher:
    """NASA Apply with its default settings; `changes` are alpha, window, blocks and mask."""
    settings = {"alpha": ALPHA, "window": Window(), "blocks": "all", **changes}
    return apply_nasa(patcher, conditioning(unwanted or prompt(UNWANTED)), **settings)


def subtractions(alpha: float = ALPHA) -> list[Subtraction]:
    """The subtraction that `steer` adds, for `reference`."""
    return [Subtraction(prompt(UNWANTED)["context"], alpha)]


def sampled(patcher: ModelPatcher, positive: list | None = None, negative: list | None = None, **settings: Any):
    """The host's KSampler on the two default prompts or other conditionings."""
    positive = conditioning(prompt(POSITIVE)) if positive is None else positive
    negative = conditioning(prompt(UNCONDITIONAL)) if negative is None else negative
    return host_sample(patcher, positive, negative, **settings)


def guided(guider: Any, *, seed: int = 7) -> torch.Tensor:
    """One step with a guider by the host's custom sampling nodes; the noise is that of `noise`."""
    out, _ = run_node(
        "nodes_custom_sampler.SamplerCustomAdvanced",
        noise=run_node("nodes_custom_sampler.RandomNoise", noise_seed=seed),
        guider=guider,
        sampler=run_node("nodes_custom_sampler.KSamplerSelect", sampler_name="lcm"),
        sigmas=run_node(
            "nodes_custom_sampler.BasicScheduler", model=guider.model_patcher, scheduler="simple", steps=1, denoise=1.0
        ),
        latent_image={"samples": empty_latent()},
    )
    return out["samples"]


@functools.cache
def exact_model() -> ModelPatcher:
    """`subject`'s network in the host, in fp64."""
    return stock_model(random_unet("sd15"), "sd15", torch.float64)


def written_out(patcher: ModelPatcher, mask: torch.Tensor | None = None) -> ModelPatcher:
    """NASA by plain replacement of each cross-attention, like `steer` but without `snoopi_core`; for samplers with the
    positive conditioning first.
    """
    steered = patcher.clone()
    unet = patcher.model.diffusion_model
    for group, blocks in (
        ("input", unet.input_blocks),
        ("middle", [unet.middle_block]),
        ("output", unet.output_blocks),
    ):
        for index, block in enumerate(blocks):
            for part in block:
                if isinstance(part, SpatialTransformer):
                    replacement = functools.partial(_subtract, part, mask)
                    steered.set_model_attn2_replace(replacement, group, index)
    return steered


def _subtract(transformer, mask, q, k, v, options):
    layer = transformer.transformer_blocks[options["block_index"]].attn2
    z = _respond(q, k, v, layer.heads)
    numbers = options["cond_or_uncond"]
    rows = q.shape[0] // len(numbers)
    context = prompt(UNWANTED)["context"].to(q)
    weight = ALPHA
    if mask is not None:  # a square, like the picture
        side = round(q.shape[1] ** 0.5)
        weight = ALPHA * torch.nn.functional.adaptive_avg_pool2d(mask.to(q)[None], side).reshape(1, -1, 1)
    for chunk, number in enumerate(numbers):
        if number == 0:
            own = slice(chunk * rows, (chunk + 1) * rows)
            k_neg, v_neg = (project(context).expand(rows, -1, -1) for project in (layer.to_k, layer.to_v))
            z[own] -= weight * _respond(q[own], k_neg, v_neg, layer.heads)
    return z


def _respond(q, k, v, heads):
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(-2)


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest absolute difference; 0.0 means equal bit for bit."""
    return float((first - second).abs().max())


def assert_identical(what: str, as_what: str, first: torch.Tensor, second: torch.Tensor) -> None:
    """Assert equality bit for bit, and record it for the table."""
    measured("composition", what, f"difference from {as_what}", difference(first, second), 0.0)


def assert_close_to_exact(what: str, error: float, bar: float = TOLERANCE) -> None:
    """Assert a relative error against fp64, and record it for the table."""
    measured("composition", what, "relative error", error, bar)
