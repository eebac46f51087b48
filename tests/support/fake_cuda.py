"""A CUDA device without a GPU: torch's fake tensors have its name and check devices and dtypes, but compute nothing.

torch offers the forward pass alone: autograd's engine asks the driver about the device. `backward` walks the graph in
Python instead, as the engine does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUDA = torch.device("cuda", 0)


@contextmanager
def autocast() -> Iterator[None]:
    """CUDA's autocast to bf16; torch.autocast itself turns off where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


@torch.no_grad()
def backward(loss: torch.Tensor) -> None:
    """Add the gradients of `loss` (scalar) to the weights'. Without checkpointing, which needs the engine.

    Raises:
        AssertionError: a gradient is on another device than its tensor.
    """
    waiting, nodes = Counter(), [loss.grad_fn]
    for node in nodes:
        for child, _ in node.next_functions:
            if child is not None and child not in waiting:
                nodes.append(child)
            waiting[child] += 1
    gradients = defaultdict(dict, {loss.grad_fn: {0: torch.ones_like(loss)}})
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        found: tuple[torch.Tensor | None, ...] = (None,) * len(node.next_functions)
        if given := gradients.pop(node, None):
            result = node(*(_fitted(given.get(n), wanted, node) for n, wanted in enumerate(node._input_metadata)))
            found = result if isinstance(result, tuple) else (result,)
        for gradient, (child, place) in zip(found, node.next_functions, strict=True):
            if child is None:
                continue
            if gradient is not None:
                sums = gradients[child]
                sums[place] = sums[place] + gradient if place in sums else gradient
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)


def _fitted(gradient: torch.Tensor | None, wanted: object, node: object) -> torch.Tensor | None:
    """The gradient summed over broadcast dimensions and in its tensor's dtype, as the engine passes it on."""
    if gradient is None:
        return None
    assert gradient.device == wanted.device, f"{node.name()}: a gradient on {gradient.device} for {wanted.device}"
    return gradient.sum_to_size(wanted.shape).to(wanted.dtype)
