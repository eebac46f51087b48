"""Estimates parameters, memory and operations of a run before it starts, from the models' configs alone.

The trainer's own iteration runs on the meta device (iteration.py), where tensors are counted but not computed; this
file adds what stays in memory all the time. Not included: workspaces of cuDNN and other libraries, fragmentation, and
FSDP, which shards the permanent parts over processes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from training.config import Recipe
from training.distill.networks import Teachers, make_student, trainable
from training.distill.noise_levels import NoiseLevels
from training.models.backbone import Backbone
from training.trainer.distributed.accelerator import rows_at_once
from training.trainer.estimate.iteration import META, MetaClipLoss, count_micro_batch

CUDA_CONTEXT = 0.8 * 2**30  # not measured: with cuBLAS and cuDNN 0.5 to 1 GiB, depending on card and version
_BLOCK, _SMALLEST = 256, 4096  # of bitsandbytes: values that share a scale, and size below which moments have 32 bits


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What each process needs.

    trained, frozen: number of parameters by network. memory: bytes by part. flops: of one iteration.
    """

    trained: dict[str, int]
    frozen: dict[str, int]
    memory: dict[str, float]
    flops: float

    @property
    def total(self) -> float:
        """Bytes at the peak."""
        return sum(self.memory.values())


def estimate(
    recipe: Recipe, backbone: Backbone, levels: NoiseLevels, *, processes: int = 1, cuda: bool = True
) -> Estimate:
    """Estimate what each process of a run needs.

    Args:
        backbone: the teacher, loaded `without_weights`; without its text encoder if the run needs none.
        processes: number of processes (DDP) that share the batch.
        cuda: add the memory of the CUDA context.
    """
    # as `build_trainer` does
    backbone = replace(backbone, network=copy.deepcopy(backbone.network), vae=copy.deepcopy(backbone.vae))
    start = backbone.network.state_dict() if recipe.student.init else None
    full = recipe.student.train == "full"
    student = make_student(backbone.network, recipe, weights=start) if full else None
    backbone.to(META, torch.bfloat16 if recipe.loop.precision == "bf16" else None)
    student = student or make_student(backbone.network, recipe, weights=start)
    teachers = Teachers(backbone.network, recipe)
    clip = MetaClipLoss(recipe.clip, backbone) if recipe.clip.weight > 0 else None

    own = recipe.loop.batch_size // processes
    rows = rows_at_once(recipe, processes)
    first, *more = (
        count_micro_batch(recipe, backbone, levels, student, teachers, clip, rows, step)
        for step in sorted({0, len(recipe.student.steps) - 1})
    )
    last = more[0] if more else first
    # each earlier step adds the same operations
    earlier = mean_step(recipe) / max(1, len(recipe.student.steps) - 1)
    flops = (first.flops + earlier * (last.flops - first.flops)) * own / rows

    ours, lora = trainable(student), teachers.lora_parameters()
    frozen: dict[str, Iterable[nn.Parameter]] = {"teacher": backbone.network.parameters()}
    frozen["student"] = student.parameters()  # of a LoRA student; weights shared with the teacher are counted above
    if backbone.text_encoder is not None:
        frozen["text encoder"] = backbone.text_encoder.parameters()
    frozen["VAE"] = backbone.vae.parameters()
    if clip is not None:
        frozen["CLIP and its decoder"] = (weight for module in (clip.model, clip.vae) for weight in module.parameters())
    parts = _without_shared(frozen, known=[*ours, *lora])

    memory: dict[str, float] = {"trained weights, fp32": _bytes([*ours, *lora])}
    memory["the student's gradients"] = _bytes(ours)
    memory[f"moments of {recipe.loop.optimizer}"] = sum(_moments(weight, recipe) for weight in (*ours, *lora))
    if recipe.student.ema_decay:
        memory["EMA of the student"] = _bytes(ours)
    if processes > 1:
        memory["gradient buckets of DDP"] = _bytes([*ours, *lora])
    memory |= {f"frozen: {name}": _bytes(weights) for name, weights in parts.items()}
    memory[f"activations, {rows} row(s) at once"] = max(first.peak, last.peak) - _bytes(ours)
    if recipe.output.background_save and not cuda:  # on CUDA it is the machine's memory, not the GPU's
        memory["a checkpoint being written"] = checkpoint_size(memory)
    if cuda:
        memory["CUDA context (assumed)"] = CUDA_CONTEXT
    return Estimate(
        trained={"student": _count(ours), "LoRA teacher": _count(lora)},
        frozen={name: _count(weights) for name, weights in parts.items()},
        memory=memory,
        flops=flops,
    )


def checkpoint_size(memory: dict[str, float]) -> float:
    """Bytes of a checkpoint, from an estimate's parts."""
    return sum(size for part, size in memory.items() if part.startswith(("trained", "moments", "EMA")))


def mean_step(recipe: Recipe) -> float:
    """Mean number of the drawn step, from 0 on: how many steps run before it on average."""
    weights = recipe.student.step_weights or (1.0,) * len(recipe.student.steps)
    return sum(step * weight for step, weight in enumerate(weights)) / sum(weights)


def _without_shared(
    networks: dict[str, Iterable[nn.Parameter]], known: list[nn.Parameter]
) -> dict[str, list[nn.Parameter]]:
    """Each network's weights that are not in an earlier network; networks without any are left out."""
    seen = {id(weight) for weight in known}
    parts: dict[str, list[nn.Parameter]] = {}
    for name, weights in networks.items():
        for weight in weights:
            if id(weight) not in seen:
                seen.add(id(weight))
                parts.setdefault(name, []).append(weight)
    return parts


def _moments(weight: nn.Parameter, recipe: Recipe) -> float:
    """Bytes of AdamW's two moments of a weight."""
    if recipe.loop.optimizer == "adamw8bit" and weight.numel() >= _SMALLEST:
        return 2 * weight.numel() * (1 + 4 / _BLOCK)
    return 2 * weight.numel() * 4


def _count(weights: list[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)


def _bytes(weights: list[nn.Parameter]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)
