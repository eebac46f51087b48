"""Measures the cost of NASA: one step of a network, plain, with NASA, NAG and VSF, with CFG and with ComfyUI's NAG.

    python benchmarks/nasa_cost.py sd15 sdxl pixart --rounds 5
    python benchmarks/nasa_cost.py current --rounds 5 --bf16 --pytorch-attention
    python benchmarks/nasa_cost.py current --quick
    python benchmarks/nasa_cost.py current templates --count-only --bf16 --pytorch-attention
    python benchmarks/nasa_cost.py current templates --count-only memory --bf16 --pytorch-attention

Prints a Markdown table: medians of the ratios to the plain step of the same round (so that drift of the machine's speed
cancels), the ratio of floating-point operations (the lower limit), and that of peak memory, each measured in a separate
process. A step is a whole run of ComfyUI's sampler, so it includes the negative's keys and values. Weights are random;
the arithmetic is that of the real model. `current` are the networks that people run now, a few of their blocks at full
width; with --quick, two heads and a small latent, to see that everything runs. --count-only counts operations and
computes no products, so that it takes minutes even for `templates`, the sizes of ComfyUI's templates for video; with
`memory` it counts the bytes of the tensors that exist at a time. Needs what `make test` installs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from full_width import CURRENT
from live_bytes import most_live_bytes
from network_sizes import MODELS, Model, build, latent, prompt, start_host
from operations import flops
from peak import own_peak
from without_products import WithoutProducts

CASES = ("plain", "NASA", "NAG", "VSF", "CFG 2", "NAG (core)")
ALPHAS = {"NASA": 0.3, "NAG": 4.0, "VSF": 2.0}
COUNTED = {"operations": ("TFLOP a step", 1e12, flops), "memory": ("GB a step", 1e9, most_live_bytes)}
"""What --count-only counts: its name, unit and function."""
ALL = {**MODELS, **CURRENT}
Step = Callable[[], Any]


def steps(
    model: Model, names: list[str], *, bf16: bool, compiled: bool = False, start_percent: float = 0.0
) -> dict[str, Step]:
    """One sampling step for each case, on one network. NASA begins at `start_percent`: late, it never does."""
    import comfy.sample
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_nag import NAGuidance

    from snoopi_pack.snoopi_core.guidance.methods import make_method
    from snoopi_pack.snoopi_core.host.conditioning.window import Window
    from snoopi_pack.snoopi_core.host.nasa.apply import apply_nasa

    plain = build(model, bf16=bf16)
    if compiled:
        set_torch_compile_wrapper(plain, backend="inductor")
    positive, negative = prompt(model, 1), prompt(model, 2)
    empty = latent(model)
    noise = comfy.sample.prepare_noise(empty, 0)
    ours = {"window": Window(start_percent=start_percent), "blocks": "all"}
    patchers = {"plain": (plain, 1.0), "CFG 2": (plain, 2.0)}
    for name, alpha in ALPHAS.items():
        patchers[name] = (apply_nasa(plain, negative, alpha=alpha, method=make_method(name), **ours), 1.0)
    if model.core_nag:
        patchers["NAG (core)"] = (NAGuidance.execute(plain, 5.0, 0.5, 2.5).result[0], 1.0)

    def step(patcher: Any, cfg: float) -> Step:
        return lambda: comfy.sample.sample(
            patcher, noise, 1, cfg, "lcm", "simple", positive, negative, empty, disable_pbar=True, seed=0
        )

    return {name: step(*patchers[name]) for name in names if name in patchers}


def count(arguments: argparse.Namespace, key: str) -> None:
    """Print a row with the operations, or the memory, of each case."""
    # A small network runs in full first: kernels are tried before they are used, and must be right.
    small = steps(ALL[f"{key.removesuffix('-template')}-quick"], ["NASA"], bf16=arguments.bf16)
    small["NASA"]()
    _, unit, measure = COUNTED[arguments.count_only]
    # With CFG, ComfyUI decides by the free memory whether to run both prompts at once.
    names = [name for name in arguments.cases if measure is flops or name not in ("CFG 2", "NAG (core)")]
    with WithoutProducts():
        counted = {name: measure(step) for name, step in steps(ALL[key], names, bf16=arguments.bf16).items()}
    ratios = [f"{counted[name] / counted['plain']:.4f}" if name in counted else "-" for name in CASES[1:]]
    print(f"| {ALL[key].name}, {size(ALL[key])} | {counted['plain'] / unit:.2f} | {' | '.join(ratios)} |", flush=True)


def timed(step: Step, *, gpu: bool) -> float:
    """Seconds of one step; on a CPU processor time, so that other programs do not count."""
    import torch

    if not gpu:
        start = time.process_time()
        step()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(arguments: argparse.Namespace, key: str, name: str) -> int:
    """Peak memory in bytes of two steps of one case, measured in a separate process."""
    command = [sys.executable, __file__, key, "--peak-of", name, "--threads", str(arguments.threads)]
    for option in ("gpu", "compile", "bf16", "pytorch_attention"):
        command += [f"--{option.replace('_', '-')}"] if getattr(arguments, option) else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def print_peak(arguments: argparse.Namespace) -> None:
    import torch

    [key] = arguments.models
    [step] = steps(ALL[key], [arguments.peak_of], bf16=arguments.bf16, compiled=arguments.compile).values()
    step()
    step()
    print(torch.cuda.max_memory_allocated() if arguments.gpu else own_peak())


def size(model: Model) -> str:
    sides = " and ".join("x".join(map(str, shape[1:])) for shape in model.shapes)
    return f"latent {sides}, {model.tokens} tokens"


def circumstances(arguments: argparse.Namespace) -> str:
    import torch

    device = torch.cuda.get_device_name() if arguments.gpu else f"CPU, {arguments.threads} thread(s)"
    more = ["PyTorch's attention"] * arguments.pytorch_attention + ["compiled"] * arguments.compile
    rounds = [] if arguments.count_only else [f"{arguments.rounds} rounds"]
    return ", ".join([device, "bf16" if arguments.bf16 else "fp32", *more, *rounds])


def compare(arguments: argparse.Namespace, key: str) -> None:
    model = ALL[key]
    peaks = (
        {}
        if arguments.no_memory
        else {name: peak_bytes(arguments, key, name) for name in ("plain", "NASA", "CFG 2") if name in arguments.cases}
    )
    cases = steps(model, arguments.cases, bf16=arguments.bf16, compiled=arguments.compile)
    operations = {name: 0 if arguments.compile else flops(step) for name, step in cases.items()}
    if arguments.compile:  # otherwise each step has run once already, to count its operations
        for step in cases.values():
            step()
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(arguments.rounds):
        for name, step in cases.items():
            taken[name].append(timed(step, gpu=arguments.gpu))

    print(f"\n### {model.name}, {size(model)}: {circumstances(arguments)}\n")
    print("| case | s a step (median) | time / plain (median; least to most) | FLOPs / plain | peak memory / plain |")
    print("|---|---|---|---|---|")
    for name, times in taken.items():
        ratios = [ours / base for ours, base in zip(times, taken["plain"], strict=True)]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        work = f"{operations[name] / operations['plain']:.4f}" if operations[name] else "-"
        memory = f"{peaks[name] / peaks['plain']:.4f}" if name in peaks else "-"
        print(f"| {name} | {statistics.median(times):.3f} | {ratio} | {work} | {memory} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", choices=(*ALL, "current", "templates"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true", help="on CUDA, in bf16")
    parser.add_argument("--bf16", action="store_true", help="in bf16 on a CPU, which only those with AMX compute fast")
    parser.add_argument("--pytorch-attention", action="store_true", help="as ComfyUI attends on most GPUs")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, as the host's node sets it up")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--quick", action="store_true", help="`current` with two heads and a small latent")
    parser.add_argument(
        "--count-only",
        nargs="?",
        const="operations",
        choices=COUNTED,
        help="count floating-point operations, or the memory of a step, in minutes; nothing is computed",
    )
    parser.add_argument("--peak-of", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.bf16 |= arguments.gpu
    start_host(gpu=arguments.gpu, pytorch_attention=arguments.pytorch_attention)

    import torch

    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    if arguments.peak_of:
        print_peak(arguments)
        return
    groups = {
        "current": [key for key in CURRENT if key.endswith("-quick") == arguments.quick and "template" not in key],
        "templates": [key for key in CURRENT if key.endswith("-template")],
    }
    if arguments.count_only:
        unit, *_ = COUNTED[arguments.count_only]
        print(f"| network: {circumstances(arguments)} | {unit} | {' | '.join(CASES[1:])} |")
        print("|---" * (1 + len(CASES)) + "|")
    for key in dict.fromkeys(key for name in arguments.models for key in groups.get(name, [name])):
        (count if arguments.count_only else compare)(arguments, key)


if __name__ == "__main__":
    main()
