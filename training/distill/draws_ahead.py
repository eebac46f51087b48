"""Draws an iteration's random numbers while the one before is trained.

Every process draws those of the whole batch (rng.py), 5 ns a number: for Stable Diffusion and SDXL about 1 % of an
iteration on an H100 for each process, so 8 % with eight and most of it with 64, if the GPU had to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from training.distill.rng import Draws


class DrawsAhead:
    """The same numbers as from `draw`, given an iteration; `iterations`: of the whole run."""

    def __init__(self, draw: Callable[[int], Draws], iterations: int) -> None:
        self._draw, self._iterations = draw, iterations
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="draws")
        self._ahead: dict[int, Future[Draws]] = {}

    def of(self, iteration: int) -> Draws:
        """The numbers of `iteration`; those of the next are begun."""
        ahead, self._ahead = self._ahead.get(iteration), {}
        draws = self._draw(iteration) if ahead is None else ahead.result()
        if iteration + 1 < self._iterations:
            self._ahead = {iteration + 1: self._thread.submit(self._draw, iteration + 1)}
        return draws
