"""What NASA costs: one step of a full-size UNet, plain, with NASA and with classifier-free guidance, run in turn.

    python benchmarks/nasa_cost.py --rounds 5

Prints medians of the ratios to the plain step of the same round, so that a machine whose speed drifts does not decide.
Weights are random; the arithmetic is that of the real model. Needs what `make test` installs.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SD15 = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 768, "adm_in_channels": None,
    "use_linear_in_transformer": False, "use_spatial_transformer": True, "use_temporal_attention": False,
    "legacy": False, "num_classes": None,
}  # fmt: skip


def start_host(cpu: bool) -> None:
    """Put a real ComfyUI on the path, as tests/conftest.py does, and the pack beside it."""
    host = subprocess.check_output([sys.executable, ROOT / "scripts" / "host.py"], text=True).strip()
    sys.path[:] = [host, *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    sys.argv = ["main.py", *(["--cpu"] if cpu else [])]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    spec = importlib.util.spec_from_file_location(
        "snoopi_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=64, help="latent height and width")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true")
    args = parser.parse_args()
    start_host(cpu=not args.gpu)

    import comfy.sample
    import comfy.supported_models
    import torch
    from comfy.model_management import get_torch_device
    from comfy.model_patcher import ModelPatcher

    from snoopi_pack.snoopi_core.host.nasa import apply_nasa
    from snoopi_pack.snoopi_core.host.window import Window

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = comfy.supported_models.SD15(dict(SD15))
    config.set_inference_dtype(torch.bfloat16 if args.gpu else torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    for weight in model.diffusion_model.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    plain = ModelPatcher(model, get_torch_device(), torch.device("cpu"))
    positive, negative = ([[torch.randn(1, 77, 768), {}]] for _ in range(2))
    steered = apply_nasa(plain, negative, alpha=0.3, window=Window(), blocks="all")
    latent = torch.zeros(1, 4, args.side, args.side)
    noise = torch.randn(latent.shape)

    def step(patcher: ModelPatcher, cfg: float) -> float:
        start = time.perf_counter()
        comfy.sample.sample(
            patcher, noise, 1, cfg, "lcm", "simple", positive, negative, latent, disable_pbar=True, seed=0
        )
        return time.perf_counter() - start

    cases = {"plain": (plain, 1.0), "NASA": (steered, 1.0), "CFG 2": (plain, 2.0)}
    for case in cases.values():
        step(*case)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(args.rounds):
        for name, case in cases.items():
            times[name].append(step(*case))
    print(f"SD1.5, latent {args.side}x{args.side}, 77 tokens, {args.rounds} rounds, {args.threads} thread(s)")
    for name, taken in times.items():
        ratios = [ours / base for ours, base in zip(taken, times["plain"], strict=True)]
        print(f"  {name:6s} {statistics.median(taken):8.3f} s a step, {statistics.median(ratios):.3f} of plain")


if __name__ == "__main__":
    main()
