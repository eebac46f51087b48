"""The arguments of `python -m training.evaluate`. Imports nothing slow, so that --help is quick."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.models.guidance.methods import methods_help

METRICS = ("fid", "prc", "clip", "hps-v2.0", "hps-v2.1")
JUDGES = 'clip, people, or a plug-in such as training.evaluate.judges.shapes:judge ("shapes" for short; also "avatars")'


def parser() -> argparse.ArgumentParser:
    """The parser of all five commands."""
    top = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Measure a student of one step or a few as the paper does: make images, score them, count "
        "removals, report. COMMAND --help lists the options of each.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _generate(commands.add_parser("generate", help="make images of prompts; continues where it was stopped"))
    _score(commands.add_parser("score", help="FID, precision / recall, CLIP score and HPSv2 of such images"))
    _removal(commands.add_parser("removal", help="how often a negative prompt removes what it names"))
    _report(commands.add_parser("report", help="one HTML page and one Markdown page of all results"))
    _alpha(commands.add_parser("alpha", help="measure the best NASA alpha and write it into the student's file"))
    return top


def _generate(p: argparse.ArgumentParser) -> None:
    _student(p)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompts", help='a file, folder or hub data set as in prompts.source, "shapes" or "avatars"')
    source.add_argument("--pairs", help='for removal: "paper", "avatars", "shapes", or a .json file')
    p.add_argument("--out", type=Path, required=True, help="a folder; each method gets a folder in it")
    p.add_argument(
        "--methods",
        nargs="+",
        default=["none", "nasa"],
        help=f"{methods_help()} (default: none nasa)",
    )
    p.add_argument("--count", type=_positive, help="images of each prompt or pair (default: 1, for pairs 100)")
    p.add_argument("--limit", type=_positive, help="use at most this many prompts of each file")
    p.add_argument("--negative", help="for all prompts (default: the paper's generic one)")
    p.add_argument("--column", default="", help="the column of a table that holds the prompts")
    p.add_argument("--split", default="train", help="the split of a hub data set")
    p.add_argument("--title", default="", help="name in the report")
    _sampling(p)
    _protocol(p)


def _score(p: argparse.ArgumentParser) -> None:
    _image_folders(p, "scores.json")
    p.add_argument("--metrics", nargs="*", choices=METRICS, default=list(METRICS), help="(default: all)")
    p.add_argument("--plugins", nargs="*", default=[], help="imagereward, pickscore, or package.module:function")
    p.add_argument("--reference", type=Path, help="a folder of images, or an .npz of their statistics")
    p.add_argument("--save-reference", type=Path, help="save the reference's statistics and features in this .npz")
    p.add_argument("--side", type=_positive, help="for FID: centre-crop all images and resize them to this many pixels")
    p.add_argument("--neighbours", type=_positive, help="k of precision and recall (default: 3)")
    p.add_argument("--inception-weights", help="local file")
    p.add_argument("--clip-model", help="open_clip's name, or local-dir:FOLDER (default: ViT-g-14)")
    p.add_argument("--clip-weights", help="local file, or open_clip's tag (default: laion2b_s12b_b42k)")
    p.add_argument("--clip-prefix", help='text before each prompt (default: "A photo depicts ")')
    p.add_argument("--hps-model", help="open_clip's name, or local-dir:FOLDER (default: ViT-H-14)")
    for version in ("v2.0", "v2.1"):
        p.add_argument(f"--hps-{version}-weights", dest=f"hps_{version}_weights", help="local file")
    _device(p)
    _protocol(p)


def _removal(p: argparse.ArgumentParser) -> None:
    _image_folders(p, "removal-JUDGE.json")
    p.add_argument("--judge", required=True, help=JUDGES)
    p.add_argument("--answers", type=Path, nargs="*", default=[], help="judge people: the files that the page saved")
    p.add_argument("--page", type=Path, help="judge people: the page to write (default: people.html with the images)")
    p.add_argument("--order", type=int, default=0, help="judge people: random seed of the order of the images")
    _zero_shot(p)
    _device(p)


def _report(p: argparse.ArgumentParser) -> None:
    p.add_argument("folders", nargs="+", type=Path, help="folders that hold images, scores or removals")
    p.add_argument("--out", type=Path, default=Path("report.html"), help="the page; a .md is written next to it")
    p.add_argument("--title", default="Evaluation")
    p.add_argument("--grid", type=int, default=6, help="number of prompts in a grid of images")
    _protocol(p)


def _alpha(p: argparse.ArgumentParser) -> None:
    _student(p)
    p.add_argument("--pairs", default="paper", help='"paper" (default), "avatars", "shapes", or a .json file')
    p.add_argument(
        "--alphas",
        type=float,
        nargs="+",
        default=[0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.2],
        help="strengths (default: %(default)s)",
    )
    p.add_argument("--count", type=_positive, default=8, help="images of each pair (default: 8)")
    p.add_argument("--judge", default="clip", help=f"{JUDGES.replace('people, ', '')} (default: clip)")
    p.add_argument("--dry-run", action="store_true", help="measure only, write nothing")
    _sampling(p)
    _zero_shot(p)


def _student(p: argparse.ArgumentParser) -> None:
    p.add_argument("model", help="a student's .safetensors file, a run's folder, or a diffusers folder")
    for part in ("text-encoder", "vae"):
        p.add_argument(f"--{part}", default="", help="diffusers folder or hub id to take it from")
    p.add_argument("--base", default="", help="of a LoRA: the model it is applied to (default: as its file says)")


def _sampling(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--seed", type=int, default=0, help="an image's noise depends on it (default: 0), the prompt and the number"
    )
    how = p.add_mutually_exclusive_group()
    how.add_argument(
        "--timesteps",
        type=int,
        nargs="*",
        default=[],
        help="where to sample, such as 999 749 499 249 (default: as the file says, else 999)",
    )
    how.add_argument(
        "--preset", default="auto", help="sample as a published model: the names of One-Step Sampler's presets"
    )
    p.add_argument("--size", type=_positive, help="pixels (default: the model's own)")
    p.add_argument("--precision", choices=("no", "fp16", "bf16"), default="no", help="of the network's arithmetic")
    p.add_argument("--threads", type=_positive, help="number of CPU threads")
    _device(p)


def _device(p: argparse.ArgumentParser) -> None:
    p.add_argument("--batch", type=_positive, default=16, help="images at a time (default: 16)")
    p.add_argument("--cpu", action="store_true", help="do not use the GPU")


def _zero_shot(p: argparse.ArgumentParser) -> None:
    p.add_argument("--clip-model", default="ViT-H-14", help="judge clip: open_clip's name, or local-dir:FOLDER")
    p.add_argument("--clip-weights", default="laion2b_s32b_b79k", help="judge clip: local file, or open_clip's tag")


def _image_folders(p: argparse.ArgumentParser, result: str) -> None:
    p.add_argument("folders", nargs="+", type=Path, help="folders made by generate, or one that contains them")
    p.add_argument("--out", type=Path, help=f"the results file (default: {result} in the first folder)")


def _protocol(p: argparse.ArgumentParser) -> None:
    p.add_argument("--protocol", choices=("paper",), default="", help="insist on the paper's settings")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value
