"""A training loop that may be killed at any moment: started again, it continues where it last saved.

Random numbers must come from the seed and the iteration alone (`training.distill.rng.generator`), so that a resumed
training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from snoopi_core.formats.atomic import replacing

Losses = dict[str, torch.Tensor]


def learning_rate(iteration: int, iterations: int, *, warmup: int = 100, falling: float = 0.3) -> float:
    """The learning rate's factor: rises over `warmup` iterations, stays at 1, falls as a cosine in the last part.

    Being constant for so long, it lets a training be made longer after it has begun.
    """
    rise = min(1.0, (iteration + 1) / max(1, min(warmup, iterations // 10)))
    left = (iterations - iteration) / max(1.0, falling * iterations)
    return rise * (1.0 if left >= 1 else 0.01 + 0.99 * (0.5 - 0.5 * math.cos(math.pi * max(0.0, left))))


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, iteration: int) -> None:
    """Move the weights and buffers of `average` towards those of `module`; less far, the later it is."""
    decay = min(decay, (iteration + 1) / (iteration + 10))
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
    for mean, buffer in zip(average.buffers(), module.buffers(), strict=True):
        mean.copy_(buffer)


@dataclass(kw_only=True)
class Training:
    """What is saved and restored: networks and optimiser.

    folder, name: the state is in `name`.pt and the losses are in `name`.jsonl.
    save_every: seconds between two saves.
    """

    folder: Path
    name: str
    networks: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    iterations: int
    save_every: float = 60.0
    log_every: int = 20
    iteration: int = 0
    _stopped: bool = field(default=False, init=False)

    @property
    def state_file(self) -> Path:
        return self.folder / f"{self.name}.pt"

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    def resume(self) -> int:
        """Restore the newest state, if there is one. The number of iterations that are done."""
        if not self.state_file.is_file():
            return 0
        state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]
        if self.log_file.is_file():  # rows after the save are written again
            rows = [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]
            kept = [json.dumps(row) + "\n" for row in rows if row["iteration"] < self.iteration]
            self.log_file.write_text("".join(kept), encoding="utf-8")
        return self.iteration

    def save(self) -> None:
        """Write the state atomically."""
        networks = {name: network.state_dict() for name, network in self.networks.items()}
        state = {"iteration": self.iteration, "networks": networks, "optimizer": self.optimizer.state_dict()}
        with replacing(self.state_file) as temporary:
            torch.save(state, temporary)

    def run(self, losses: Callable[[int], Losses], after: Callable[[int], None] = lambda iteration: None) -> bool:
        """Minimise losses(iteration)["loss"] up to `iterations`; `after` is called after every update.

        Ctrl-C and SIGTERM save the state and end the loop.

        Returns:
            whether the training is complete.

        Raises:
            FloatingPointError: the loss is not finite.
            RuntimeError: another process trains the same.
        """
        try:
            with FileLock(self.folder / f"{self.name}.lock", timeout=0):
                return self._run(losses, after)
        except Timeout as error:
            raise RuntimeError(f"{self.name} in {self.folder} is being trained by another process") from error

    def _run(self, losses: Callable[[int], Losses], after: Callable[[int], None]) -> bool:
        parameters = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._stopped = False
        handlers = {name: signal.signal(name, self._stop) for name in (signal.SIGINT, signal.SIGTERM)}
        started, first, saved = time.monotonic(), self.iteration, time.monotonic()
        try:
            while self.iteration < self.iterations and not self._stopped:
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * learning_rate(self.iteration, self.iterations)
                found = losses(self.iteration)
                if not torch.isfinite(found["loss"]):
                    raise FloatingPointError(f"{self.name}: the loss at iteration {self.iteration} is not finite")
                self.optimizer.zero_grad(set_to_none=True)
                found["loss"].backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                self.optimizer.step()
                after(self.iteration)
                self.iteration += 1
                done, now = self.iteration - first, time.monotonic()
                if self.iteration % self.log_every == 0 or self.iteration == self.iterations:
                    self._log(found, (now - started) / done)
                if now - saved > self.save_every:
                    self.save()
                    saved = time.monotonic()
            self.save()
        finally:
            for name, handler in handlers.items():
                signal.signal(name, handler)
        return self.iteration >= self.iterations

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _log(self, found: Losses, seconds: float) -> None:
        row = {
            "iteration": self.iteration - 1,
            **{name: round(float(value.detach()), 5) for name, value in found.items()},
        }
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "seconds": round(seconds, 3)}) + "\n")
        losses = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "iteration")
        left = (self.iterations - self.iteration) * seconds / 60
        print(
            f"{self.name} {self.iteration}/{self.iterations}: {losses}; {seconds:.2f} s each, {left:.0f} min left",
            flush=True,
        )
