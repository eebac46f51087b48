"""The positive rows of one call of the model: their images, and their part of a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..conditioning.mask import WindowPart, check_whole, mask_for_cells, mask_for_rows, window_part
from .rows import HostCall, Layout, equal_parts
from .sampling_run import PositiveChunks


@dataclass(frozen=True, kw_only=True, eq=False)
class CallRows:
    """The rows of one call of the model.

    layout: None for the host's own.
    options: the call's transformer_options.
    whole: the shape of the run's latent, if it is known.
    """

    host: HostCall
    layout: Layout | None
    chunks: PositiveChunks
    options: Mapping[str, Any]
    whole: torch.Size | None

    @property
    def positive(self) -> tuple[bool, ...]:
        """Which of equal parts of the call's rows are positive; the host's parts are its conditionings."""
        if self.layout is None:
            return tuple(number in self.chunks.numbers for number in self.host.numbers)
        return equal_parts(self.layout.positive_rows(self.host, self.chunks.numbers))

    @cached_property
    def size(self) -> tuple[int, ...]:
        """(h, w) or (F, h, w) of the latent before the host crops it to areas."""
        return self.chunks.size or tuple(self.host.x.shape[2:])

    @cached_property
    def part(self) -> WindowPart | None:
        """The part of the run's latent that a context window takes."""
        return window_part(self.options, (self.host.rows, self.host.x.shape[1], *self.size), self.whole)

    def images(self) -> torch.Tensor | None:
        """The image in the run's batch of each positive row, (R,); None if those of each conditioning are in order.

        Raises:
            ValueError: another node has taken some rows, and it is not known which.
        """
        in_window = self.part is not None and self.part.dim == 0
        if self.layout is None and not in_window:
            return None
        images = self.part.indices if in_window else range(self.host.rows)
        numbers = [images[row % self.host.rows] for row in self._positive_rows("a negative for each image")]
        return torch.tensor(numbers, device=self.host.x.device)

    def mask(self, mask: torch.Tensor) -> torch.Tensor:
        """The part of a mask (n, h, w) for each positive row, (R, F, h, w).

        Raises:
            ValueError: it is not known which part of the run's latent the rows are.
        """
        host, size = self.host, self.size
        chosen = [i for i, number in enumerate(host.numbers) if number in self.chunks.numbers]
        areas = [(self.chunks.areas or {}).get(host.uuids[i]) for i in chosen]
        shape, got = (host.rows, host.x.shape[1], *size), (host.rows, *host.x.shape[1:])
        is_packed = len(got) != len(shape)  # with the sound, into one line
        if self.whole is not None and not (is_packed and self.part):
            check_whole(mask, shape=got if is_packed else shape, whole=self.whole, part=self.part)
        for area in () if is_packed else areas:
            check_whole(mask, shape=got, whole=(*shape[:2], *(size if area is None else area[0])))
        masks = mask_for_rows(mask, rows=host.rows, size=size, areas=areas, part=self.part)
        if self.layout is None:
            return masks
        rows = self._positive_rows("a mask")
        if self.layout.cells is None or is_packed:
            raise ValueError(
                "mask: another node calls the model with a part of the latent, or with other values, and nothing says "
                "which part. Disconnect the mask of NASA Apply, or remove that node"
            )
        order = {i: number for number, i in enumerate(chosen)}
        return mask_for_cells(
            masks,
            size=tuple(host.x.shape[2:]),
            rows=[order[row // host.rows] * host.rows + row % host.rows for row in rows],
            cells=self.layout.cells[self._are_positive()],
        )

    def _are_positive(self) -> list[bool]:
        assert self.layout is not None
        return self.layout.positive_rows(self.host, self.chunks.numbers)

    def _positive_rows(self, what: str) -> list[int]:
        """The host's row of each positive row of the call."""
        if self.layout is None:
            numbers = self.host.numbers
            rows = range(self.host.x.shape[0])
            return [row for row in rows if numbers[row // self.host.rows] in self.chunks.numbers]
        if not self.layout.rows_are_known:
            raise ValueError(
                f"NASA Apply has {what}, but another node calls the model with rows of its own, and nothing says which "
                "image and which part of it they are. Use one negative without a mask, or remove that node"
            )
        return [row for row, chosen in zip(self.layout.rows, self._are_positive(), strict=True) if chosen]
