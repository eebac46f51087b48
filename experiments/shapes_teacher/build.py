"""`python -m experiments.shapes_teacher.build`: train the teacher of the shapes world from scratch.

There are two stages, the VAE and the teacher. They are independent, because the latent code is given (see latents.py).
A stage is skipped if its result is in the output folder. The folder has the layout of a Stable Diffusion pipeline in
diffusers, plus the recipe (recipe.json) and the log (metrics.jsonl).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, ModelMixin, StableDiffusionPipeline, UNet2DConditionModel

from experiments.clip_text import TextCache, new_text_encoder
from experiments.diffusion_teacher import as_shipped, new_scheduler
from experiments.shapes_teacher.codec import CodecRecipe, train_codec
from experiments.shapes_teacher.train import TeacherRecipe, train_teacher
from training.models.clip_tokenizer import clip_tokenizer

DEFAULT_OUT = Path("runs/shapes_teacher")


def _stage(folder: Path, kind: type[ModelMixin], make: Callable[[], ModelMixin], force: bool) -> ModelMixin:
    """Load the part in `folder`; if it is not there, make and save it first."""
    if (folder / "config.json").is_file() and not force:
        print(f"{folder.name}: found in {folder}, not repeated (--force repeats it)")
        return kind.from_pretrained(folder)
    start = time.monotonic()
    part = as_shipped(make())
    part.save_pretrained(folder)
    print(f"{folder.name}: {time.monotonic() - start:.0f} s, written to {folder}")
    return part


def build(out: Path, codec: CodecRecipe, teacher: TeacherRecipe, *, force: bool = False) -> None:
    """Make the missing parts of a teacher folder; with `force`, all of them.

    Raises:
        ValueError: the folder has parts made with other settings.
    """
    recipe = json.loads(json.dumps({"vae": asdict(codec), "teacher": asdict(teacher)}))
    kept = out / "recipe.json"
    if kept.is_file() and not force:
        old = json.loads(kept.read_text())["recipe"]
        changed = [
            f"{part}.{key}" for part in recipe for key in recipe[part] if recipe[part][key] != old[part].get(key)
        ]
        if changed:
            raise ValueError(
                f"{out} was made with other settings ({', '.join(changed)}); give another --out, or --force"
            )
    out.mkdir(parents=True, exist_ok=True)
    versions = {library.__name__: library.__version__ for library in (torch, diffusers, transformers)}
    kept.write_text(json.dumps({"recipe": recipe, "versions": versions}, indent=2) + "\n")
    print(kept.read_text(), end="")

    encoder = new_text_encoder(teacher.seed)
    with (out / "metrics.jsonl").open("w" if force else "a", encoding="utf-8") as file:

        def log(row: dict[str, float]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        vae = _stage(out / "vae", AutoencoderKL, lambda: train_codec(codec, log), force)
        text = TextCache(encoder)
        unet = _stage(out / "unet", UNet2DConditionModel, lambda: train_teacher(teacher, text, log), force)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.shapes_teacher.build", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"folder to write (default {DEFAULT_OUT})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--force", action="store_true", help="repeat finished stages")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    seed = arguments.seed
    build(arguments.out, CodecRecipe(seed=seed), TeacherRecipe(seed=seed), force=arguments.force)


if __name__ == "__main__":
    main()
