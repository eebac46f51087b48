"""Small transformers of the host's own classes with random weights; shared code of all families.

Nothing of `snoopi_core` is used here. Dimensions: B batch rows, N image tokens, T text tokens, H heads, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.model_patcher
import comfy.sample
import comfy.supported_models_base
import torch

from .formula import Subtraction

CONTEXT = 48  # not a multiple of any other width here, so mix-ups of dimensions raise errors

_CROSS_ATTENTION = ("attn2", "audio_attn2", "cross_attn", "cross_attention")
_VALUES_AND_OUTPUTS = (
    *("v", "to_v", "v_proj", "to_value", "o", "to_out", "proj", "out_proj", "output_proj", "o_proj", "out_layer"),
)
Condition = dict[str, Any]
"""A prompt as the host keeps it: `context` (B, T, C), and what else the family's text encoder hands over."""


class Reference(Protocol):
    """The expected output of the network, in fp64."""

    def output(
        self, x: torch.Tensor, t: torch.Tensor, condition: Condition, subtractions: Sequence[Subtraction] = ()
    ) -> torch.Tensor:
        """The network's output, (B, C, ...) fp64, for its input x and its timesteps t (B,)."""
        ...


def build(
    config_class: type[comfy.supported_models_base.BASE],
    arguments: dict[str, Any],
    *,
    adjust: Callable[[torch.nn.Module], None] | None = None,
    weights: dict[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> comfy.model_patcher.ModelPatcher:
    """A model of the host in fp32 on the CPU, built like the host's loaders do: config, get_model, patcher.

    Args:
        arguments: of the network; they override those of the config class.
        adjust: changes the network before its weights are set.
        weights: of parts beside the network, under their names in a file.
    """
    config = config_class(dict(arguments))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(dict(weights or {}), "", device="cpu").eval()
    if adjust is not None:
        adjust(model.diffusion_model)
    randomize(model.diffusion_model, seed)
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher_class(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


@torch.no_grad()
def randomize(network: torch.nn.Module, seed: int) -> None:
    """Set random weights that keep the scale of activations; the host's layers are not initialized.

    Value and output weights of cross-attention are doubled, so that changes there are visible in the output.
    Queries and keys are not, since larger logits would magnify rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        weight.normal_(generator=generator)
        leaf = name.split(".")
        if weight.ndim >= 2 and leaf[-1] == "weight":
            weight.div_(math.sqrt(weight[0].numel()))
        elif leaf[-1] == "weight":
            weight.mul_(0.1).add_(1.0)  # norms
        else:
            weight.mul_(0.3)  # biases, tables of shifts and scales, learned tokens
        if any(part in _CROSS_ATTENTION for part in leaf) and leaf[-1] == "weight" and weight.ndim == 2:
            layer = leaf[-3] if leaf[-2] == "0" else leaf[-2]
            if layer in _VALUES_AND_OUTPUTS:
                weight.mul_(2.0)
            elif layer in ("kv_linear", "kv_proj", "to_kv"):
                weight[weight.shape[0] // 2 :].mul_(2.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model twice: in the host, and as a reference."""

    name: str
    """The row of the compatibility table."""
    patcher: comfy.model_patcher.ModelPatcher
    reference: Reference
    make_condition: Callable[[torch.Generator, int, int, int], Condition]
    latent_shape: tuple[int, ...]
    """Channels, frames of a video, height, width."""
    patch: int
    """Height and width of the latent in one image token."""
    blocks: int
    tokens: int = 24
    fewer: int = 7
    more: int = 40
    """Lengths of prompts to try: the usual one, a shorter and a longer one."""

    def condition(self, seed: int, tokens: int | None = None, *, rows: int = 1, padding: int = 0) -> Condition:
        """A random prompt; the last `padding` tokens are marked as padding if the family has such a mask."""
        generator = torch.Generator().manual_seed(seed)
        return self.make_condition(generator, self.tokens if tokens is None else tokens, rows, padding)

    def last_block(self) -> torch.nn.Module:
        """The last block of the host's network."""
        network = self.patcher.model.diffusion_model
        lists = ("transformer_blocks", "visual_transformer_blocks", "blocks", "transformer.layers", "decoder.layers")
        for name in lists:
            try:
                return network.get_submodule(name)[-1]
            except AttributeError:
                continue
        raise AssertionError(f"{type(network).__name__} has none of {lists}")

    def half(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A mask over the left half of the picture, (h, w) as the latent, and the same over the image tokens, (N,)."""
        height, width = (side // self.patch for side in self.latent_shape[-2:])
        tokens = torch.zeros(math.prod(self.latent_shape[1:-2]), height, width)
        tokens[..., : width // 2] = 1.0
        mask = tokens[0].repeat_interleave(self.patch, 0).repeat_interleave(self.patch, 1)
        return mask, tokens.flatten()

    def latent(self, rows: int = 1) -> torch.Tensor:
        """An empty latent, (rows, C, ...)."""
        return torch.zeros(rows, *self.latent_shape)

    def noise(self, rows: int = 1, seed: int = 7) -> torch.Tensor:
        """The host's noise for this seed, (rows, C, ...)."""
        return comfy.sample.prepare_noise(self.latent(rows), seed)

    def to_host(self, latent: torch.Tensor) -> Any:
        """A latent as the host's samplers take it."""
        return latent

    def from_host(self, latent: Any) -> torch.Tensor:
        """A latent from the host's samplers."""
        return latent

    def sample(
        self,
        patcher: comfy.model_patcher.ModelPatcher,
        positive: Condition | Sequence[Condition],
        unconditional: Condition,
        *,
        cfg: float = 1.0,
        rows: int = 1,
        seed: int = 7,
        steps: int = 1,
    ) -> torch.Tensor:
        """The host's own KSampler, (rows, C, ...); several positive prompts as Conditioning (Combine) joins them.

        Uses lcm, which returns the last x0 unchanged; euler subtracts it from x and adds it again (error 1e-6).
        """
        prompts = [positive] if isinstance(positive, dict) else positive
        combined = [entry for prompt in prompts for entry in conditioning(prompt)]
        noise, latent = self.to_host(self.noise(rows, seed)), self.to_host(self.latent(rows))
        samples = comfy.sample.sample(
            patcher, noise, steps, cfg, "lcm", "simple", combined, conditioning(unconditional), latent, seed=seed,
            disable_pbar=True,
        )  # fmt: skip
        return self.from_host(samples)

    @torch.no_grad()
    def expected(
        self,
        positive: Condition,
        subtractions: Sequence[Subtraction] = (),
        *,
        unconditional: Condition | None = None,
        unconditional_subtractions: Sequence[Subtraction] = (),
        cfg: float = 1.0,
        rows: int = 1,
        seed: int = 7,
    ) -> torch.Tensor:
        """Expected result of one step of `sample`, fp64: the reference network with the host's scalar formulas."""
        sampling = self.patcher.model.model_sampling
        sigma = sampling.sigma_max.double().expand(rows)
        x = sampling.noise_scaling(sigma, self.noise(rows, seed).double(), self.latent(rows).double(), True)
        x_in, t = sampling.calculate_input(sigma, x), sampling.timestep(sigma.float()).float()
        output = self.reference.output(x_in, t, positive, subtractions)
        if unconditional is not None:
            unguided = self.reference.output(x_in, t, unconditional, unconditional_subtractions)
            output = unguided + cfg * (output - unguided)  # x0 is linear in the output
        return self.patcher.model.latent_format.process_out(sampling.calculate_denoised(sigma, output, x))


def conditioning(condition: Condition, **settings: Any) -> list:
    """The host's CONDITIONING for a prompt. Copied, because some networks write into it."""
    extra = {key: value for key, value in condition.items() if key != "context"}
    return [[condition["context"].clone(), {**extra, **settings}]]


def host_inputs(patcher: comfy.model_patcher.ModelPatcher, x: torch.Tensor, condition: Condition) -> dict[str, Any]:
    """The arguments that the host passes to its network for a prompt, from its extra_conds; floats as fp64."""
    settings = {key: value for key, value in condition.items() if key != "context"}
    # Defaults of the host's sampling.
    sizes = {"width": 8 * x.shape[3], "height": 8 * x.shape[2]} if x.ndim > 3 else {}
    settings = {"noise": x.float(), "device": torch.device("cpu"), **sizes, **settings}
    conds = patcher.model.extra_conds(cross_attn=condition["context"].clone(), **settings)
    inputs = {
        key: cond.process_cond(batch_size=x.shape[0], device=torch.device("cpu"), area=None).cond
        for key, cond in conds.items()
    }
    return {
        key: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in inputs.items()
    }


def draw(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)


def padding_mask(tokens: int, padding: int, rows: int) -> torch.Tensor:
    """A mask as from the host's text encoders, (rows, tokens): 1 for tokens, then 0 for padding."""
    mask = torch.ones(rows, tokens, dtype=torch.long)
    mask[:, tokens - padding :] = 0
    return mask


@contextmanager
def failing(module: torch.nn.Module, error: Exception) -> Iterator[None]:
    """Within the block, `module` raises `error` when called."""

    def fail(*_: Any) -> None:
        raise error

    handle = module.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()
