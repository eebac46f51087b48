"""Follow the rows of a UNet's cross-attention that other nodes repeat.

Nodes for regional prompts (attention coupling) repeat the prompt's rows in an `attn2_patch`, each with the text of one
region, and merge them again in an `attn2_output_patch`. Which rows they repeat is seen by giving them row numbers.

Nothing here depends on values in Python, so that a compiled model contains it.
Dimensions: B rows of a call, b rows after these patches, N image tokens, C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from .call import Call, Options, unknown_rows

CALL, OTHERS, DOUBT = "snoopi_nasa", "snoopi_nasa_patches", "snoopi_nasa_doubt"
"""Keys of extra_options: the call, the other nodes' patches, and a 0-dim tensor that is above 0 after a failure."""
NUMBERS = "snoopi_nasa_numbers"
"""Key of extra_options: the call's row that each row after the patches comes from, (b,), if they change the rows."""
Patch = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Options], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def must_follow(call: Call) -> bool:
    """Whether the rows of this call differ for NASA."""
    several = any(term.mask is not None or term.context.tokens.shape[0] > 1 for term in call.terms)
    return several or not all(call.positive)


def follow_rows(
    n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: Options
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An `attn2_patch` that runs the other nodes' patches, and again on row numbers if they change the rows."""
    others, rows = extra_options[OTHERS], n.shape[0]
    out = _run(others, n, context, value, extra_options)
    if out[0].shape[0] == rows:
        return out
    if rows != extra_options[CALL].shape[0] or rows * torch.finfo(n.dtype).eps > 2.0:  # larger numbers are rounded
        raise ValueError(unknown_rows(out[0].shape[0], rows))
    numbers = torch.arange(rows, device=n.device, dtype=n.dtype).view(-1, 1, 1).repeat(1, *n.shape[1:])
    moved = _run(others, numbers, context.clone(), value.clone(), dict(extra_options))[0]
    if moved.shape[0] != out[0].shape[0]:
        raise ValueError(unknown_rows(out[0].shape[0], rows))
    first = moved[:, :1, :1].round().clamp(0, rows - 1)
    extra_options[DOUBT].add_((moved != first).any().to(extra_options[DOUBT].dtype))
    extra_options[NUMBERS] = first.flatten().long()
    return out


def followed_call(call: Call, numbers: torch.Tensor) -> Call:
    """A call for the rows `numbers` (b,) of `call`, in which all are positive, with a mask of zeros for the others.

    A change times zero is zero, so these stay exactly as they are.
    """
    images = _spread(call, call.image_numbers(numbers.device))[numbers]
    everywhere = call.terms[0].strength.new_ones(len(call.image_numbers(numbers.device)), 1, 1, 1)
    terms = []
    for term in call.terms:
        mask = _spread(call, everywhere if term.mask is None else term.mask)[numbers]
        terms.append(dataclasses.replace(term, mask=mask))
    shape = torch.Size((numbers.shape[0], *call.shape[1:]))
    return dataclasses.replace(call, positive=(True,), terms=tuple(terms), shape=shape, images=images)


def _spread(call: Call, values: torch.Tensor) -> torch.Tensor:
    """Values of all rows of a call, (B, ...), from those of its positive rows, (R, ...); zeros elsewhere."""
    size = call.shape[0] // len(call.positive)
    chosen = iter(values.split(size))
    nothing = values.new_zeros(size, *values.shape[1:])
    return torch.cat([next(chosen) if is_positive else nothing for is_positive in call.positive])


def _run(
    patches: Sequence[Patch], n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: Options
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    for patch in patches:
        n, context, value = patch(n, context, value, extra_options)
    return n, context, value
