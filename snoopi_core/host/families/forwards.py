"""Temporarily replace the forwards of modules, and run a network up to its first block."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_base import BaseModel

from ..conditioning.negative import Negative
from ..torch_compile import uncompiled

Forward = Callable[..., Any]


@contextlib.contextmanager
def replaced_forwards(forwards: Sequence[tuple[torch.nn.Module, Forward]]) -> Iterator[None]:
    """Temporarily replace the forwards of modules; restores the class's forward, or another patch's."""
    before = [vars(module).get("forward") for module, _ in forwards]
    try:
        for module, forward in forwards:
            module.forward = forward
        yield
    finally:
        for (module, _), forward in zip(forwards, before, strict=True):
            if forward is not None:
                module.forward = forward
            elif "forward" in vars(module):
                del module.forward


class _FirstBlockReached(Exception):
    """Stops the network's forward at its first block; its argument: the block's arguments by name."""


def first_block_arguments(
    model: BaseModel, block: torch.nn.Module, negative: Negative, x: torch.Tensor, sigma: torch.Tensor
) -> dict[str, Any]:
    """The network's arguments to its first block for the negative: the text, prepared by the host's own code.

    The host prepares a prompt in two places: in the model's `extra_conds`, and at the start of the network's forward.
    """
    rows = negative.embedding.shape[0]
    # A copy, because HunyuanDiT writes its padding into the text tensor.
    conditioning = comfy.sampler_helpers.convert_cond([(negative.embedding.clone(), negative.settings)])
    x = x[:1].repeat(rows, *(1,) * (x.ndim - 1))
    [prepared] = comfy.samplers.encode_model_conds(
        model.extra_conds, conditioning, x, x.device, "negative", latent_image=torch.zeros_like(x)
    )
    arguments = {
        name: each.process_cond(batch_size=rows, area=None).cond for name, each in prepared["model_conds"].items()
    }
    signature = inspect.signature(type(block).forward)

    def reached(*args: Any, **kwargs: Any) -> None:
        raise _FirstBlockReached(signature.bind(block, *args, **kwargs).arguments)

    try:
        with replaced_forwards([(block, reached)]), uncompiled:
            model.apply_model(x, sigma[:1].repeat(rows), **arguments, transformer_options={})
    except _FirstBlockReached as stop:
        return stop.args[0]
    raise RuntimeError(f"{type(block).__name__} was never called: this ComfyUI calls its blocks in another way")
