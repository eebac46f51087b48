"""Which conditioning, which image and which part of the latent each row of a call of the model belongs to.

The host stacks whole conditionings: all rows of the first, then all rows of the second. Nodes that divide a latent into
tiles stack them in other ways and tell nobody. So every call of the host carries labels beside its conditionings, and
such a node repeats and crops them together with everything else.

Dimensions: B rows of the host's call, b rows of the model's call, D dimensions of a picture (2) or a video (3).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch

from ..conditioning.mask import take_cells

LABELS_KEY, HOST_CALL_KEY = "snoopi_labels", "snoopi_host_call"
"""Keys of the labels among a call's conditionings, and of its HostCall in transformer_options."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HostCall:
    """What the host passes to the model, before other nodes divide it.

    x: (B, C, *size).
    context: the text of each row, (B, T, C); None if the model has none.
    numbers, uuids: of its conditionings, each with an equal share of the rows.
    is_seen: False if another node's function was called in place of `label_call`; x and context are then only what that
        function passed to the model.
    """

    x: torch.Tensor
    context: torch.Tensor | None
    numbers: tuple[int, ...]
    uuids: tuple[Hashable, ...]
    is_seen: bool = True

    @property
    def rows(self) -> int:
        """Rows of each conditioning.

        Raises:
            ValueError: the rows cannot be shared equally.
        """
        if self.x.shape[0] % len(self.numbers):
            raise ValueError(_refusal(f"{self.x.shape[0]} rows for {len(self.numbers)} conditionings"))
        return self.x.shape[0] // len(self.numbers)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """The rows of a call that is not stacked as the host stacks them.

    rows: the row of the host's call that each row comes from.
    rows_are_known: False if it is only certain whether that row belongs to the prompt.
    cells: where in the host's latent each place of a row is, (b, D, *size); None if it is not known.
    """

    rows: tuple[int, ...]
    rows_are_known: bool = True
    cells: torch.Tensor | None = None

    def positive_rows(self, host: HostCall, numbers: frozenset[int]) -> list[bool]:
        return [host.numbers[row // host.rows] in numbers for row in self.rows]


def host_call(
    x: torch.Tensor, context: torch.Tensor | None, options: Mapping[str, Any], *, is_seen: bool = True
) -> HostCall:
    numbers = tuple(options.get("cond_or_uncond", (0,)))
    uuids = tuple(options.get("uuids") or [None] * len(numbers))
    return HostCall(x=x, context=context, numbers=numbers, uuids=uuids, is_seen=is_seen)


def label_call(
    wrapper: Callable[..., torch.Tensor] | None, apply_model: Callable[..., torch.Tensor], args: dict[str, Any]
) -> torch.Tensor:
    """A `model_function_wrapper` around another one, or around the model: labels what the host passes to it."""
    x, c = args["input"], args["c"]
    call = host_call(x, c.get("c_crossattn"), c.get("transformer_options", {}))
    options = {**c.get("transformer_options", {}), HOST_CALL_KEY: call}
    c = {**c, LABELS_KEY: _labels(x), "transformer_options": options}
    if wrapper is None:
        return apply_model(x, args["timestep"], **c)
    return wrapper(apply_model, {**args, "c": c})


def read_layout(
    host: HostCall, x: torch.Tensor, context: torch.Tensor | None, labels: Any, positive: frozenset[int]
) -> Layout | None:
    """The layout of the rows of x (b, C, *size); None for the host's own.

    Raises:
        ValueError: it is not certain which rows belong to the positive prompt, whose numbers are `positive`.
    """
    unknown = Layout(rows=(0,) * x.shape[0], rows_are_known=False)
    is_mixed = len({number in positive for number in host.numbers}) > 1
    if not host.is_seen:
        if is_mixed:
            raise ValueError(_refusal("a function of its own, which takes the place of NASA Apply's"))
        return unknown
    if x is host.x:
        return None
    rows = _labelled_rows(host, x, labels)
    same_text = _same_rows(context, host.context)
    if rows is not None:
        # A row with the text of another one than its label says has not been moved together with its label.
        if same_text is None or all(same[row] or not any(same) for same, row in zip(same_text, rows, strict=True)):
            return _own_or(host, x, Layout(rows=rows, cells=_checked_cells(host, x, labels, rows)))
    elif x.shape == host.x.shape and (
        torch.equal(x, host.x) or (same_text is not None and all(same[i] for i, same in enumerate(same_text)))
    ):
        return _own_or(host, x, Layout(rows=tuple(range(x.shape[0]))))
    if not is_mixed:
        return unknown
    if rows is None and same_text is not None:
        flags = Layout(rows=tuple(range(host.x.shape[0]))).positive_rows(host, positive)
        found = [[row for row, is_same in enumerate(same) if is_same] for same in same_text]
        if all(len({flags[row] for row in several}) == 1 for several in found):
            return Layout(rows=tuple(several[0] for several in found), rows_are_known=False)
    raise ValueError(
        _refusal(f"{x.shape[0]} rows of {_size(x)}, where ComfyUI itself has {host.x.shape[0]} of {_size(host.x)}")
    )


def equal_parts(flags: Sequence[bool]) -> tuple[bool, ...]:
    """The flags of the fewest equal parts of consecutive rows that have one flag each, for the flags of all rows."""
    size = gcd(len(flags), *(i for i in range(1, len(flags)) if flags[i] != flags[i - 1]))
    return tuple(flags[::size])


def _labels(x: torch.Tensor) -> torch.Tensor:
    """The row and the coordinates of each place, (B, 1 + D, *size) for x (B, C, *size)."""
    # In fp32, like what other nodes may crop and repeat here; exact for sides up to 2^24.
    sides = (x.shape[0], *x.shape[2:])
    lines = (torch.arange(side, device=x.device, dtype=torch.float32) for side in sides)
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=1)


def _labelled_rows(host: HostCall, x: torch.Tensor, labels: Any) -> tuple[int, ...] | None:
    """The host's row of each row of x; None if the labels have not been moved together with x."""
    if not isinstance(labels, torch.Tensor) or labels.shape != (x.shape[0], x.ndim - 1, *x.shape[2:]):
        return None
    if x.ndim != host.x.ndim or not torch.equal(labels, labels.round()):
        return None
    rows = labels[:, 0].flatten(1)
    low, high = rows.min(1).values, rows.max(1).values
    if not torch.equal(low, high) or low.min() < 0 or high.max() >= host.x.shape[0]:
        return None
    return tuple(low.long().tolist())


def _checked_cells(host: HostCall, x: torch.Tensor, labels: torch.Tensor, rows: tuple[int, ...]) -> torch.Tensor | None:
    """The places of x in the host's latent, if that latent has the values of x there."""
    cells = labels[:, 1:].long()
    if any(cells[:, i].min() < 0 or cells[:, i].max() >= side for i, side in enumerate(host.x.shape[2:])):
        return None
    return cells if torch.equal(take_cells(host.x, rows, cells), x) else None


def _own_or(host: HostCall, x: torch.Tensor, layout: Layout) -> Layout | None:
    """None if the layout is the host's own. A latent with other values may have been shifted, so it is not."""
    return None if layout.rows == tuple(range(host.x.shape[0])) and torch.equal(x, host.x) else layout


def _same_rows(context: torch.Tensor | None, other: torch.Tensor | None) -> list[list[bool]] | None:
    """Whether rows have the same values, (b, B) for contexts (b, T, C) and (B, T, C); None if they do not compare."""
    if context is None or other is None or context.shape[1:] != other.shape[1:] or context.dtype != other.dtype:
        return None
    other = other.to(context.device)
    return torch.stack([(context == row).flatten(1).all(1) for row in other], dim=1).tolist()


def _size(x: torch.Tensor) -> str:
    return " x ".join(map(str, x.shape[2:]))


def _refusal(got: str) -> str:
    return (
        "NASA cannot tell which rows of this call of the model belong to the prompt: another node calls it with "
        f"{got}. Set that node's number of tiles at a time (tile batch size) to 1, set cfg to 1, or remove it or NASA "
        "Apply"
    )
