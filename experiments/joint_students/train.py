"""`python -m experiments.joint_students.train NETWORK`: train a student by regression on pairs of noise and x0.

At sigma 1 the input is the noise of a pair, at the lower sigmas of four steps it is the pair's x0 with fresh noise.
May be killed at any moment; started again, it continues. Losses are in OUT/NETWORK.jsonl, the state in OUT/NETWORK.pt,
the recipe in OUT/NETWORK.json.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from experiments.joint_students.host import start_host
from experiments.joint_students.pairs import Pairs, load_pairs, load_turn
from experiments.joint_students.turn import digest
from experiments.json_file import read_json, write_json
from experiments.training_loop import Losses, Training, update_average
from training.distill.rng import generator

SIGMAS = (1.0, 0.75, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """source: what made the pairs. rotation: `turn.digest` of that of the noise. first: share of the samples at
    sigma 1; the others are at the later sigmas."""

    network: str
    source: str = "student"
    rotation: str = ""
    iterations: int = 12000
    batch: int = 32
    lr: float = 2e-3
    first: float = 0.7
    ema: float = 0.99
    width: int = 128
    depth: int = 4
    seed: int = 0


def read_recipe(folder: Path, network: str) -> Recipe:
    """What the network in a folder is trained with.

    Raises:
        FileNotFoundError: nothing has been trained there.
    """
    if not (found := read_json(folder / f"{network}.json")):
        raise FileNotFoundError(
            f"{folder} has no training of {network}; run `python -m experiments.joint_students.train {network}` first"
        )
    return Recipe(**found)


def _keep_recipe(folder: Path, recipe: Recipe) -> None:
    """Write it beside the state. Raises ValueError if the state is of another one."""
    file = folder / f"{recipe.network}.json"
    if file.is_file():
        begun = read_recipe(folder, recipe.network)
        if replace(begun, iterations=recipe.iterations) != recipe:
            raise ValueError(f"{folder} has a training with {begun}, not {recipe}; choose another --out")
    write_json(file, asdict(recipe))


def train(folder: Path, pairs: Pairs, recipe: Recipe, *, save_every: float = 60.0) -> bool:
    """Train, or continue. Whether it is done.

    Raises:
        ValueError: the folder has a training with another recipe; only `iterations` may change.
    """
    _keep_recipe(folder, recipe)
    start_host()
    import comfy.model_management

    from experiments.joint_students.networks import new_model

    model = new_model(
        recipe.network,
        channels=pairs.x0.shape[1],
        text=pairs.texts.shape[2],
        width=recipe.width,
        depth=recipe.depth,
        seed=recipe.seed,
    )
    network = model.diffusion_model.train().requires_grad_(True)
    average = copy.deepcopy(network).requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):  # Flux adds to a norm's input in place, but its gradient needs it
            module.register_forward_pre_hook(lambda module, inputs: (inputs[0].clone(),))
    training = Training(
        folder=folder,
        name=recipe.network,
        networks={"network": network, "average": average},
        optimizer=torch.optim.AdamW(network.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-3),
        iterations=recipe.iterations,
        save_every=save_every,
    )
    training.resume()

    options = {"optimized_attention_override": _attention}

    def losses(iteration: int) -> Losses:
        rng = generator(recipe.seed, "joint student", iteration)
        rows = torch.randint(len(pairs.x0), (recipe.batch,), generator=rng)
        x0, noise = pairs.x0[rows], pairs.noise[rows]
        later = torch.rand(recipe.batch, generator=rng) >= recipe.first
        step = torch.randint(1, len(SIGMAS), (recipe.batch,), generator=rng)
        sigma = torch.tensor(SIGMAS)[step * later]
        fresh = torch.randn(x0.shape, generator=rng)
        wide = later[:, None, None, None]
        s = sigma[:, None, None, None]
        x = s * torch.where(wide, fresh, noise) + (1 - s) * x0
        text = pairs.texts[pairs.numbers[rows]]
        with torch.autocast("cpu", torch.bfloat16):
            made = model.apply_model(x, sigma, c_crossattn=text, num_tokens=text.shape[1], transformer_options=options)
        gaps = (made.float() - x0).square().mean(dim=(1, 2, 3))
        parts = {"first": gaps[~later], "later": gaps[later]}
        return {"loss": gaps.mean(), **{name: part.mean() for name, part in parts.items() if len(part)}}

    before = comfy.model_management.in_training
    comfy.model_management.in_training = True  # the host's kernels for inference have no gradients
    try:
        return training.run(losses, lambda iteration: update_average(average, network, recipe.ema, iteration))
    finally:
        comfy.model_management.in_training = before


def _attention(
    function: Callable[..., torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Attention in its plain form, in place of the host's: half the time on a CPU, for sequences this short.

    Args:
        q, k, v: (B, tokens, H D), or (B, H, tokens, D) with `skip_reshape`.

    Returns:
        (B, tokens, H D).
    """
    if not kwargs.get("skip_reshape"):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.joint_students.train", description=__doc__)
    parser.add_argument("network", choices=("two-stream", "single-stream"))
    parser.add_argument("--source", choices=("student", "teacher"), default="student")
    parser.add_argument("--iterations", type=int, default=Recipe.iterations)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--width", type=int, default=Recipe.width)
    parser.add_argument("--depth", type=int, default=Recipe.depth)
    parser.add_argument("--out", type=Path, default=Path("runs/joint_students"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    pairs = load_pairs(args.out, args.source)
    recipe = Recipe(
        network=args.network,
        source=args.source,
        rotation=digest(load_turn(args.out, args.source)),
        iterations=args.iterations,
        batch=args.batch,
        width=args.width,
        depth=args.depth,
    )
    train(args.out, pairs, recipe)


if __name__ == "__main__":
    main()
