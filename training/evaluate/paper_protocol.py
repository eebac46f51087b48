"""The paper's evaluation settings: the defaults of the command line, and the settings required by `--protocol paper`.

They are taken from the public code of the paper's line of work. FID, CLIP score, precision and recall: one image for
each of the first 30,000 captions of COCO-2014 val, against the whole val set. HPSv2: four styles of 800 prompts.
Removal: six pairs with 100 images each. All scores with NASA use the same negative prompt.
"""

from __future__ import annotations

import argparse
from typing import Any

NEGATIVE = "worst quality, low quality, ugly, duplicate, out of frame, deformed, blurry, bad anatomy, watermark"
COCO_IMAGES, COCO_ABLATION, COCO_REFERENCE = 30_000, 2_000, 40_504
HPS_STYLES, HPS_PROMPTS, HPS_GROUP = ("anime", "photo", "concept-art", "paintings"), 800, 80
PAIR_IMAGES = 100

# by command and argument
PAPER: dict[str, dict[str, Any]] = {
    "generate": {"count": 1, "limit": COCO_IMAGES, "negative": NEGATIVE},
    "score": {
        "side": 256,  # pixels, centre crop and Lanczos
        "clip_model": "ViT-g-14",
        "clip_weights": "laion2b_s12b_b42k",
        "clip_prefix": "A photo depicts ",
        "neighbours": 3,  # k of improved precision and recall
        "hps_model": "ViT-H-14",
    },
}
# where the defaults without --protocol differ: all prompts, and images at their own size
FREE: dict[str, dict[str, Any]] = {"generate": {"limit": None}, "score": {"side": None}}


def apply_protocol(args: argparse.Namespace) -> argparse.Namespace:
    """Set the arguments that were not given (None) to their defaults, in place.

    Raises:
        ValueError: with `--protocol paper`, an argument contradicts the paper's setting; all of them are listed.
    """
    paper = dict(PAPER.get(args.command, {}))
    pairs = getattr(args, "pairs", None)
    if pairs and args.command == "generate":
        paper["count"] = PAIR_IMAGES
    strict = getattr(args, "protocol", "") == "paper"
    wrong = [f"--pairs {pairs} (the paper's: paper)"] if strict and pairs not in (None, "paper") else []
    for name, value in paper.items():
        given = getattr(args, name)
        if given is None:
            setattr(args, name, value if strict else FREE.get(args.command, {}).get(name, value))
        elif strict and given != value and name != "clip_weights":  # may be a local copy of the paper's weights
            wrong.append(f"--{name.replace('_', '-')} {given} (the paper's: {value})")
    if wrong:
        raise ValueError(f"--protocol paper does not allow {'; '.join(wrong)}; remove these options, or --protocol")
    return args


def shortfalls(groups: dict[str, int], scores: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Differences from the paper's protocol, by metric ("fid", "prc", "clip", "hps"); metrics that match are left out.

    Args:
        groups: number of images by group of prompts, such as an HPSv2 style.
        scores: what `score` has measured, by metric.
    """
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
        if score["reference_images"] not in (0, COCO_REFERENCE):  # 0: unknown, only statistics were given
            found[name].append(
                f"a reference of {score['reference_images']} images; the paper's is COCO-2014 val, {COCO_REFERENCE}"
            )
        found[name] += _difference("side", score["side"], paper["side"])
    found["prc"] += _difference("k", scores.get("prc", {}).get("k", 3), paper["neighbours"])
    if clip := scores.get("clip"):
        found["clip"] += _difference("model", clip["model"], paper["clip_model"])
        found["clip"] += _difference("prefix", clip["prefix"], paper["clip_prefix"])
    for version in scores.keys() & {"hps-v2.0", "hps-v2.1"}:
        found["hps"] += _difference("model", scores[version]["model"], paper["hps_model"])
    return {name: "; ".join(dict.fromkeys(lines)) for name, lines in found.items() if lines}


def _difference(what: str, got: Any, paper: Any) -> list[str]:
    return [] if got == paper else [f"{what} {got!r}, the paper's {paper!r}"]
