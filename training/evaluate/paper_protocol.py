"""How the paper takes its scores (read from its own line of work's code): the defaults, and what `--protocol paper`
holds to.

FID, CLIP, precision and recall: the first 30,000 captions of COCO-2014 val, an image each; the reference is the whole
val set. HPSv2: four styles of 800 prompts. Removal: six pairs of 100 images. The scores with NASA use one negative.
"""

from __future__ import annotations

import argparse
from typing import Any

NEGATIVE = "worst quality, low quality, ugly, duplicate, out of frame, deformed, blurry, bad anatomy, watermark"
CLIP_MODEL, CLIP_PRETRAINED = "ViT-g-14", "laion2b_s12b_b42k"
COCO_IMAGES, COCO_ABLATION, COCO_REFERENCE = 30_000, 2_000, 40_504
HPS_MODEL = "ViT-H-14"
HPS_STYLES, HPS_PROMPTS, HPS_GROUP = ("anime", "photo", "concept-art", "paintings"), 800, 80
PAIR_IMAGES = 100

# by command; what a command line leaves open is taken from here
PAPER: dict[str, dict[str, Any]] = {
    "generate": {"count": 1, "limit": COCO_IMAGES, "negative": NEGATIVE},
    "score": {
        "side": 256,  # pixels: centre-cropped, Lanczos
        "clip_model": CLIP_MODEL,
        "clip_weights": CLIP_PRETRAINED,
        "clip_prefix": "A photo depicts ",
        "neighbours": 3,  # k of improved precision and recall
        "hps_model": HPS_MODEL,
    },
}
# without a protocol: every prompt, and images as they are
FREE: dict[str, dict[str, Any]] = {"generate": {"limit": None}, "score": {"side": None}}


def settle(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what the command line leaves open (None).

    Raises:
        ValueError: `--protocol paper` was given, and a setting that it fixes otherwise.
    """
    paper = dict(PAPER.get(args.command, {}))
    if getattr(args, "pairs", None) and args.command == "generate":
        paper["count"] = PAIR_IMAGES
    strict = getattr(args, "protocol", "") == "paper"
    wrong = []
    if strict and getattr(args, "pairs", None) not in (None, "paper"):
        wrong.append(f"--pairs {args.pairs} (the paper's: paper)")
    for name, value in paper.items():
        given = getattr(args, name)
        if strict and given not in (None, value) and name != "clip_weights":  # a local file is as good as the hub's
            wrong.append(f"--{name.replace('_', '-')} {given} (the paper's: {value})")
        if given is None:
            setattr(args, name, value if strict else FREE.get(args.command, {}).get(name, value))
    if wrong:
        raise ValueError(f"--protocol paper fixes what was given otherwise: {'; '.join(wrong)}; leave out one of them")
    return args


def shortfalls(groups: dict[str, int], scores: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Why scores of so many images a group are not taken as the paper's are, by metric."""
    images, paper = sum(groups.values()), PAPER["score"]
    found: dict[str, list[str]] = {"fid": [], "prc": [], "clip": [], "hps": []}
    if images not in (COCO_IMAGES, COCO_ABLATION):
        for name in ("fid", "prc", "clip"):
            found[name].append(
                f"{images} images; the paper has {COCO_IMAGES} captions of COCO, {COCO_ABLATION} in its ablations"
            )
    if any(groups.get(style) != HPS_PROMPTS for style in HPS_STYLES):
        found["hps"].append(f"{images} images; the paper has {HPS_PROMPTS} prompts of each of {', '.join(HPS_STYLES)}")
    for name in scores.keys() & {"fid", "prc"}:
        score = scores[name]
        if score["reference_images"] not in (0, COCO_REFERENCE):  # 0: statistics do not tell
            found[name].append(
                f"a reference of {score['reference_images']} images; the paper's is COCO-2014 val, {COCO_REFERENCE}"
            )
        found[name] += _other("side", score["side"], paper["side"])
    found["prc"] += _other("k", scores.get("prc", {}).get("k", 3), paper["neighbours"])
    if clip := scores.get("clip"):
        found["clip"] += _other("model", clip["model"], paper["clip_model"])
        found["clip"] += _other("prefix", clip["prefix"], paper["clip_prefix"])
    for version in scores.keys() & {"hps-v2.0", "hps-v2.1"}:
        found["hps"] += _other("model", scores[version]["model"], HPS_MODEL)
    return {name: "; ".join(dict.fromkeys(said)) for name, said in found.items() if said}


def _other(what: str, got: Any, paper: Any) -> list[str]:
    return [] if got == paper else [f"{what} {got!r}, the paper's {paper!r}"]
