"""`python -m experiments.avatars_teacher.build`: make the teacher of the avatars' world, or assemble what there is.

Stages: pictures, text encoder, the autoencoder's decoder and encoder, teacher. Each continues where it stopped, and a
finished one is not repeated. They can also be run by their own commands, decoder and teacher side by side. `--assemble`
writes a Stable Diffusion pipeline of diffusers, OUT/pipeline, from what is trained so far.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline

from experiments.avatars_teacher import data
from experiments.avatars_teacher.codec import CodecRecipe, finished_vae, measure, train_half
from experiments.avatars_teacher.teacher import TeacherRecipe, finished_unet, train_teacher
from experiments.avatars_teacher.text import TextRecipe, load_text_encoder, train_text_encoder
from experiments.diffusion_teacher import new_scheduler
from experiments.json_file import write_json
from training.models.clip_tokenizer import clip_tokenizer

# Travels in the metadata of the teacher's file and of its students' (NOTICE has the whole text).
ATTRIBUTION = (
    'Trained on pictures based on "Personas by Draftbit" (https://personas.draftbit.com/) by Draftbit - draftbit.com '
    "(https://draftbit.com/), CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/), as DiceBear remixed it, with "
    'changed colours, and things that we drew over it; and on "Critters", "Sprouts" and "Planets" by DiceBear '
    "(https://www.dicebear.com), CC0 1.0."
)


def assemble(folder: Path, codec: CodecRecipe, teacher: TeacherRecipe) -> Path:
    """Write `folder`/pipeline from what is trained so far.

    Raises:
        FileNotFoundError: a part has not been begun.
    """
    out = folder / "pipeline"
    StableDiffusionPipeline(
        vae=finished_vae(folder, codec),
        text_encoder=load_text_encoder(folder),
        tokenizer=clip_tokenizer(),
        unet=finished_unet(folder, teacher),
        scheduler=new_scheduler(teacher.prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(out)
    recipe = {"text": asdict(TextRecipe()), "vae": asdict(codec), "teacher": asdict(teacher)}
    versions = {library.__name__: library.__version__ for library in (torch, diffusers, transformers)}
    write_json(out / "recipe.json", {"recipe": recipe, "versions": versions, "notes": ATTRIBUTION})
    return out


def build(folder: Path, pictures: data.Pictures, text: TextRecipe, codec: CodecRecipe, teacher: TeacherRecipe) -> bool:
    """All stages that need pictures, in turn. Whether they are done: a signal ends them early."""
    return (
        train_text_encoder(folder, text)
        and train_half(folder, "decoder", pictures, codec)
        and train_half(folder, "encoder", pictures, codec)
        and train_teacher(folder, pictures, teacher)
    )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars_teacher.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/avatars"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--prediction", choices=("v_prediction", "epsilon"), default=TeacherRecipe().prediction)
    parser.add_argument("--assemble", action="store_true", help="train nothing; write the pipeline")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    codec, teacher = CodecRecipe(), TeacherRecipe(prediction=arguments.prediction)
    if not arguments.assemble:
        data.make(arguments.out / "pictures", data.COUNT, processes=arguments.threads)
        pictures = data.load(arguments.out / "pictures", data.COUNT)
        if not build(arguments.out, pictures, TextRecipe(), codec, teacher):
            print("stopped; the same command continues")
            return
        print("autoencoder:", measure(finished_vae(arguments.out, codec), pictures))
    print(f"written to {assemble(arguments.out, codec, teacher)}")


if __name__ == "__main__":
    main()
