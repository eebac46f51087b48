"""`python -m experiments.avatars_teacher.reader`: train the network that reads pictures of avatars, and measure it.

It learns from drawings, sharp and spoilt: blurred, noisy, or coarsened by the latent code; and, once there is an
autoencoder, from what that makes of them. `--calibrate` measures it
and the errors of real pictures after the autoencoder, from which rules.py's tolerances are taken.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from experiments.avatars_teacher.data import COUNT, Pictures, load
from experiments.avatars_teacher.latents import CELL, Code, load_code
from experiments.training_loop import Losses, Training, update_average
from snoopi_core.formats.atomic import replacing
from training.distill.rng import generator
from training.prompts.avatars.captions import SUBJECT
from training.prompts.avatars.rules import WEIGHTS, AttributeReader, errors, load_reader, scenes_of
from training.prompts.avatars.scene import Scene

BATCH, LR, EMA = 64, 2e-3, 0.998
ON_DRAWINGS = 1200  # iterations on drawings alone


def spoil(images: torch.Tensor, code: Code, rng: torch.Generator) -> torch.Tensor:
    """Images (B, 3, 64, 64), of which about two thirds are coarsened, blurred or noisy."""

    def some(share: float) -> torch.Tensor:
        return (torch.rand(len(images), 1, 1, 1, generator=rng) < share).float()

    latents = code.encode(images)
    latents = latents + some(0.5) * 0.3 * torch.randn(latents.shape, generator=rng)
    patches = torch.linalg.pinv(code.basis) @ latents.flatten(2) + code.mean[:, None]  # (B, 192, 64)
    coarse = F.fold(patches, images.shape[2:], CELL, stride=CELL)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = images + some(0.3) * torch.rand(len(images), 1, 1, 1, generator=rng) * (coarse - images)
    images = images + some(0.2) * torch.rand(len(images), 1, 1, 1, generator=rng) * (blurred - images)
    return images + some(0.4) * 0.1 * torch.randn(images.shape, generator=rng)


def targets(scenes: list[Scene], reader: AttributeReader) -> dict[tuple[str, str], torch.Tensor]:
    """The right answers (B,) for each question; -100 where there is none."""
    found = {}
    for (subject, name), answers in reader.questions.items():
        values = [
            scene.subject if name == SUBJECT else scene.values.get(name) if scene.subject == subject else None
            for scene in scenes
        ]
        found[subject, name] = torch.tensor([-100 if value is None else answers.index(value) for value in values])
    return found


@torch.no_grad()
def through(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, 64, 64) in [0, 1], encoded and decoded."""
    parts = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mean).sample for part in images.split(50)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def train_reader(
    folder: Path, pictures: Pictures, iterations: int, vae: AutoencoderKL | None = None, *, weights: Path = WEIGHTS
) -> bool:
    """Train, or continue, the network; its weights are written to `weights` when it is done. Whether it is done.

    With an autoencoder, every second picture goes through it before it is spoilt, after the first `ON_DRAWINGS`.
    """
    code = load_code(folder / "code.safetensors", pictures)
    torch.manual_seed(0)
    reader = AttributeReader().train()
    average = copy.deepcopy(reader).requires_grad_(False)
    training = Training(
        folder=folder,
        name="reader",
        networks={"reader": reader, "average": average},
        optimizer=torch.optim.AdamW(reader.parameters(), lr=LR, weight_decay=1e-2),
        iterations=iterations,
    )
    training.resume()

    def losses(iteration: int) -> Losses:
        rng = generator(0, "reader", iteration)
        rows = pictures.sample(BATCH, rng)
        images = pictures.batch(rows)
        if vae is not None and iteration >= ON_DRAWINGS:
            images[::2] = through(vae, images[::2])
        logits = reader(spoil(images, code, rng))
        right = targets([pictures.scenes[row] for row in rows.tolist()], reader)
        parts = [F.cross_entropy(logits[key], right[key]) for key in right if (right[key] >= 0).any()]
        return {"loss": torch.stack(parts).sum()}

    done = training.run(losses, lambda iteration: update_average(average, reader, EMA, iteration))
    if done:
        with replacing(weights) as temporary:
            save_file({name: weight.half().contiguous() for name, weight in average.state_dict().items()}, temporary)
    return done


def accuracy(reader: AttributeReader, images: torch.Tensor, scenes: list[Scene]) -> dict[str, float]:
    """The share of images in which each attribute, if there is one, is read right."""
    right = targets(scenes, reader)
    logits = {key: torch.cat([reader(part)[key] for part in images.split(100)]) for key in right}
    found = {}
    for (subject, name), answers in right.items():
        asked = answers >= 0
        hits = logits[subject, name].argmax(1)[asked] == answers[asked]
        found[f"{subject} {name}".strip()] = round(float(hits.float().mean()), 4)
    return found


@torch.no_grad()
def calibrate(reader: AttributeReader, pictures: Pictures, vae: AutoencoderKL | None) -> dict[str, object]:
    """Accuracy on held-back pictures, and after the autoencoder; the errors of what was read, drawn anew."""
    images, scenes = pictures.batch(torch.arange(pictures.held_back)), pictures.scenes[: pictures.held_back]
    found: dict[str, object] = {"renders": accuracy(reader, images, scenes)}
    if vae is None:
        return found
    decoded = through(vae, images)
    found["after the autoencoder"] = accuracy(reader, decoded, scenes)
    same = [n for n, scene in enumerate(scenes_of(decoded, reader)) if scene.values == scenes[n].values]
    mean, square = errors(decoded[same], images[same])
    levels = torch.tensor([0.5, 0.9, 0.99, 1.0])
    found["errors"] = {"mean": mean.quantile(levels).tolist(), "square": square.quantile(levels).tolist()}
    other = errors(decoded, images.roll(1, dims=0))
    found["errors of another scene"] = {
        "mean": float(other[0].quantile(0.01)),
        "square": float(other[1].quantile(0.01)),
    }
    return found


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars_teacher.reader", description=__doc__)
    parser.add_argument("--pictures", type=Path, default=Path("runs/avatars/pictures"))
    parser.add_argument("--count", type=int, default=COUNT, help="pictures to learn from")
    parser.add_argument("--out", type=Path, default=Path("runs/avatars"))
    parser.add_argument("--iterations", type=int, default=1600)
    parser.add_argument("--calibrate", action="store_true", help="measure, and do not train")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    pictures = load(arguments.pictures, arguments.count)
    folder = arguments.out / "pipeline" / "vae"
    vae = AutoencoderKL.from_pretrained(folder).requires_grad_(False) if folder.is_dir() else None
    if vae is None:
        print(f"there is no {folder} (written by build --assemble): only drawings are read", file=sys.stderr)
    if not arguments.calibrate:
        train_reader(arguments.out, pictures, arguments.iterations, vae)
        return
    print(json.dumps(calibrate(load_reader(), pictures, vae), indent=1))


if __name__ == "__main__":
    main()
