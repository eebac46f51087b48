"""Several steps of Euler's method in fp64, also with a change of the model between them, and LoRAs of any network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import comfy.sample
import comfy.samplers
import comfy.sd
import torch

from .base import Case, Condition, conditioning, draw
from .formula import Subtraction

STRENGTH = 0.8


def sample_euler(
    case: Case,
    patchers: Sequence,
    sigmas: Sequence[float],
    positive: Condition,
    rows: int,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """The host's Euler, one step for each patcher: as if every step were a sampler node of its own.

    Args:
        start: the latent that it begins with; empty if not given.
    """
    latent, noise = case.to_host(case.latent(rows) if start is None else start), case.to_host(case.noise(rows))
    for number, patcher in enumerate(patchers):
        latent = comfy.sample.sample_custom(
            patcher, noise, 1.0, comfy.samplers.ksampler("euler"), torch.tensor(sigmas[number : number + 2]),
            conditioning(positive), conditioning(positive), latent, disable_pbar=True, seed=7,
        )  # fmt: skip
        noise = case.to_host(torch.zeros_like(case.noise(rows)))
    return case.from_host(latent)


@torch.no_grad()
def expected_euler(
    cases: Sequence[Case],
    sigmas: Sequence[float],
    positive: Condition,
    subtractions: Sequence[Subtraction],
    rows: int,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """x' = x + (x - x0(x)) (s' - s) / s, one step for each case, in fp64; `start`: as for `sample_euler`."""
    model, sampling = cases[0].patcher.model, cases[0].patcher.model.model_sampling
    levels = torch.tensor(sigmas, dtype=torch.float64)[:, None].expand(-1, rows)
    noise = cases[0].noise(rows).double()
    latent = cases[0].latent(rows).double() if start is None else model.latent_format.process_in(start.double())
    x = sampling.noise_scaling(levels[0], noise, latent, False)
    for case, level, lower in zip(cases, levels, levels[1:], strict=False):
        t = sampling.timestep(level.float()).float()
        output = case.reference.output(sampling.calculate_input(level, x), t, positive, subtractions)
        x0 = sampling.calculate_denoised(level, output, x)
        shape = (-1, *(1,) * (x.ndim - 1))
        x = x + (x - x0) / level.view(shape) * (lower - level).view(shape)
    return model.latent_format.process_out(x)


def lora_of(case: Case, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A LoRA of the first and the last text attention."""
    attentions = case.reference.cross_attentions()
    return lora_on(case.reference.network, (attentions[0], attentions[-1]), seed)


def lora_on(
    network: torch.nn.Module, parts: Sequence[torch.nn.Module], seed: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A low-rank change, down (2, C) and up (C', 2), of each projection in these parts of a network."""
    generator = torch.Generator().manual_seed(seed)
    names = {id(module): name for name, module in network.named_modules()}
    changes = {}
    for part in parts:
        for name, module in part.named_modules():
            if isinstance(module, torch.nn.Linear) and "gate" not in name:
                high, wide = module.weight.shape
                down, up = draw(generator, 2, wide) * 0.2, draw(generator, high, 2) * 0.2
                changes[f"{names[id(part)]}.{name}"] = (down, up)
    return changes


def with_lora(patcher, lora: dict[str, tuple[torch.Tensor, torch.Tensor]]):
    """As LoraLoaderModelOnly applies the file of such a LoRA."""
    file = {}
    for name, (down, up) in lora.items():
        key = f"diffusion_model.{name}"
        file |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    return comfy.sd.load_lora_for_models(patcher, None, file, STRENGTH, 0.0)[0]


@contextmanager
def merged(case: Case, lora: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """Within the block, the case's reference has the LoRA in its weights."""
    weights = {name: case.reference.network.get_submodule(name).weight for name in lora}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        for name, (down, up) in lora.items():
            weights[name].data += STRENGTH * (up.double() @ down.double())
        yield
    finally:
        for name, weight in weights.items():
            weight.data.copy_(before[name])
