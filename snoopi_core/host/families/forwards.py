"""Temporarily replace the forwards of modules, and run a network up to its first block."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ..conditioning.negative import Negative
from ..torch_compile import uncompiled

Forward = Callable[..., Any]
_OTHERS = ("wrappers", "callbacks", "patches", "patches_replace")
"""Keys of transformer_options with other nodes' functions. They may count calls, as caches of steps do."""


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


def has_another_forward(module: torch.nn.Module) -> bool:
    """Whether a patch replaces the module's forward. A removed patch leaves the class's own forward on the instance."""
    forward = vars(module).get("forward")
    return forward is not None and getattr(forward, "__func__", None) is not type(module).forward


@contextlib.contextmanager
def own_methods(module: torch.nn.Module) -> Iterator[None]:
    """Temporarily take off what other nodes have put on a module in front of the methods of its class."""
    kind = type(module)
    replaced = {name: value for name, value in vars(module).items() if inspect.isfunction(getattr(kind, name, None))}
    for name in replaced:
        del vars(module)[name]
    try:
        yield
    finally:
        vars(module).update(replaced)


def bypassed(block: Block) -> ValueError:
    """The error for a cross-attention whose replaced projections were not called."""
    return ValueError(
        f"NASA cannot steer {block.group}.{block.index}: another node has replaced its cross-attention with one that "
        "does not use the layer's own projections. Remove that node, or exclude the block in NASA Apply's blocks"
    )


class _FirstBlockReached(Exception):
    """Stops the network's forward at its first block; its argument: the block's arguments by name."""


def _is_oom(error: Exception) -> bool:
    """Whether the host takes an error for a lack of memory, which it answers by unloading its models."""
    host = comfy.model_management
    return host.is_oom(error) if hasattr(host, "is_oom") else isinstance(error, host.OOM_EXCEPTION)


def first_block_arguments(
    model: BaseModel,
    network: torch.nn.Module,
    block: torch.nn.Module,
    negative: Negative,
    x: torch.Tensor,
    sigma: torch.Tensor,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The network's arguments to its first block for the negative: the text, prepared by the host's own code.

    The host prepares a prompt in two places: in the model's `extra_conds`, and at the start of the network's forward.
    That of the network's own class is run, because another node's in its place may keep something from call to call.

    Args:
        options: the transformer_options of the call for which the negative is prepared.

    Raises:
        RuntimeError: the network failed before its first block, or never called it; not for a lack of memory.
    """
    signature = inspect.signature(type(block).forward)

    def reached(*args: Any, **kwargs: Any) -> None:
        raise _FirstBlockReached(signature.bind(block, *args, **kwargs).arguments)

    rows = negative.embedding.shape[0]
    options = {key: value for key, value in options.items() if key not in _OTHERS}
    options = {**options, "cond_or_uncond": [0], "uuids": [*options.get("uuids", ())][:1]}
    try:
        # A copy, because HunyuanDiT writes its padding into the text tensor.
        conditioning = comfy.sampler_helpers.convert_cond([(negative.embedding.clone(), negative.settings)])
        x = x[:1].repeat(rows, *(1,) * (x.ndim - 1))
        [prepared] = comfy.samplers.encode_model_conds(
            model.extra_conds, conditioning, x, x.device, "negative", latent_image=torch.zeros_like(x)
        )
        arguments = {
            name: each.process_cond(batch_size=rows, area=None).cond for name, each in prepared["model_conds"].items()
        }
        with own_methods(network), replaced_forwards([(block, reached)]), uncompiled:
            model.apply_model(x, sigma[:1].repeat(rows), **arguments, transformer_options=options)
        raise RuntimeError(f"{type(block).__name__} was never called")
    except _FirstBlockReached as stop:
        return stop.args[0]
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:
        if _is_oom(error):
            raise
        raise RuntimeError(
            f"NASA Apply cannot prepare the negative for this model: {type(network).__name__} failed before its first "
            f"block ({type(error).__name__}: {error}). Remove the nodes that patch this model one after the other, to "
            "find the one that does not work together with NASA Apply"
        ) from error
