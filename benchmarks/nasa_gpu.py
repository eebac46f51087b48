"""Measures what only a GPU can tell about NASA, in one call of a few minutes, and prints three tables.

    python benchmarks/nasa_gpu.py                # on a GPU, in bf16
    python benchmarks/nasa_gpu.py --dry-run      # the same code with small networks on a CPU: no figure means anything

Which of PyTorch's kernels NASA takes for joint attention, and how far the log-sum-exp of each is from fp64; and for
each of the networks `current` of nasa_cost.py: whether a step outside NASA's window, with its hooks installed, is the
plain one bit for bit, how far the shares by `lse` and `call` are apart, how often a run of one step waits for the GPU
(NASA adds only the copy of its negative), and time and memory of each method against plain. Weights are random. Needs
what `make test` installs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from full_width import CURRENT
from nasa_cost import CASES, Step, steps, timed
from network_sizes import Model, start_host

BACKENDS = {1: "flash", 2: "efficient", 3: "cuDNN"}
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WIDTHS = (64, 96, 128)
TOKENS = 4096 + 128


def kernel_table(device: torch.device) -> list[str]:
    """A row for each kernel, type and head width: whether NASA takes it, and the error of its log-sum-exp."""
    from snoopi_pack.snoopi_core.host.families.joint import kernels

    lines = ["| kernel | type | head width | taken | log-sum-exp, largest error |", "|---|---|---|---|---|"]
    tokens = TOKENS if device.type == "cuda" else 256
    for number, name in BACKENDS.items():
        for of_type, dtype in TYPES.items():
            for width in WIDTHS:
                taken = kernels._works(device, dtype, number, width)
                error = "-"
                if taken:
                    q, k, v = (torch.randn(1, 2, tokens, width, device=device, dtype=dtype) for _ in range(3))
                    _, lse = kernels._run(number, q, k, v)
                    exact = (q.double() @ k.double().mT / width**0.5).logsumexp(-1)
                    error = f"{(lse.double() - exact).abs().max():.1e}"
                lines.append(f"| {name} | {of_type} | {width} | {'yes' if taken else 'no'} | {error} |")
    return lines


@contextmanager
def without_lse() -> Iterator[None]:
    """NASA takes the way that works with every attention."""
    from snoopi_pack.snoopi_core.host.families.joint import share

    with mock.patch.object(share, "has_lse", lambda *_: False):
        yield


def waits(step: Step) -> str:
    """How often a run of one step waits for the GPU, also while it is prepared."""
    if not torch.cuda.is_available():
        return "-"
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return str(sum("synchroniz" in str(each.message) for each in caught))


def flat(latent: Any) -> torch.Tensor:
    """A latent, or those of video and sound, as one vector."""
    parts = [latent] if isinstance(latent, torch.Tensor) and not latent.is_nested else latent.unbind()
    return torch.cat([part.flatten() for part in parts]).double()


def check_row(model: Model) -> str:
    """Outside its window, the two ways of the share, and how often a step waits."""
    cases = steps(model, ["plain", "NASA"], bf16=True)
    late = steps(model, ["NASA"], bf16=True, start_percent=0.9)["NASA"]
    plain, steered = flat(cases["plain"]()), flat(cases["NASA"]())
    same = torch.equal(plain, flat(late()))
    with without_lse():
        by_call = flat(cases["NASA"]())
    apart = ((steered - by_call).norm() / steered.norm()).item()
    found = " / ".join(waits(cases[name]) for name in ("plain", "NASA"))
    return f"| {model.name} | {'bit for bit' if same else 'NOT the same'} | {apart:.1e} | {found} |"


def cost_row(model: Model, *, gpu: bool, rounds: int) -> str:
    """Time, and the allocator's peak in brackets, of each case against plain."""
    cases = steps(model, [name for name in CASES if name != "NAG (core)"], bf16=True)
    peaks = {}
    for name, step in cases.items():
        step()
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        step()
        peaks[name] = torch.cuda.max_memory_allocated() if gpu else 1
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, step in cases.items():
            taken[name].append(timed(step, gpu=gpu))
    cells = []
    for name, seconds in taken.items():
        ratios = [mine / plain for mine, plain in zip(seconds, taken["plain"], strict=True)]
        cells.append(f"{statistics.median(ratios):.3f} ({peaks[name] / peaks['plain']:.3f})")
    return f"| {model.name} | {1000 * statistics.median(taken['plain']):.1f} | {' | '.join(cells[1:])} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="small networks on a CPU")
    parser.add_argument("--networks", nargs="+", choices=[key for key in CURRENT if "-template" not in key])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args(arguments)
    gpu = not given.dry_run
    if gpu and not torch.cuda.is_available():
        parser.error("no GPU was found; --dry-run tries the command on a CPU")
    if "snoopi_pack" not in sys.modules:
        start_host(gpu=gpu, pytorch_attention=True)
    keys = given.networks or [key for key in CURRENT if "-template" not in key and key.endswith("-quick") != gpu]
    where = torch.cuda.get_device_name() if gpu else "CPU, nothing here means anything"
    print(f"{where}; PyTorch {torch.__version__}\n")
    print("\n".join(kernel_table(torch.device("cuda" if gpu else "cpu"))), flush=True)
    print("\n| network | outside its window | lse against call, relative | waits in a run, plain / NASA |")
    print("|---|---|---|---|")
    for key in keys:
        print(check_row(CURRENT[key]), flush=True)
    names = [f"{name}, time (memory)" for name in CASES if name not in ("plain", "NAG (core)")]
    print(f"\n| network | ms a step, plain | {' | '.join(names)} |\n{'|---' * (len(names) + 2)}|")
    for key in keys:
        print(cost_row(CURRENT[key], gpu=gpu, rounds=given.rounds), flush=True)


if __name__ == "__main__":
    main()
