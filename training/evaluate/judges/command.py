"""The command `removal`: checks the folders, calls the judge and writes the result."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from training.evaluate.judges.load import PEOPLE, ZERO_SHOT, load_judge
from training.evaluate.judges.people import read_answers, write_page
from training.evaluate.judges.removal import Sets, is_baseline, judge_sets, legend, plain_of, summary, tally
from training.evaluate.metrics.batching import choose_device
from training.evaluate.sets.image_files import check_images
from training.evaluate.sets.manifest import find_sets, read_manifest
from training.evaluate.sets.results import REMOVAL, write_result


def removal(args: argparse.Namespace) -> int:
    """The command `removal`, with the arguments of `training.evaluate.cli`; returns the exit code.

    Raises:
        OSError, ValueError: errors for the user.
    """
    sets = open_sets(args.folders)
    out = args.out or args.folders[0] / REMOVAL.format(re.sub(r"\W+", "-", args.judge))
    more = {}
    if args.judge == PEOPLE:
        if not args.answers:
            page = write_page(args.page or args.folders[0] / "people.html", sets, order=args.order)
            print(f"{page}: open it in a browser, judge, save, and pass the saved file to --answers")
            return 0
        verdicts, more = read_answers(args.answers, sets)
    else:
        judge = load_judge(args.judge, args.clip_model, args.clip_weights, choose_device(args.cpu))
        verdicts = judge_sets(judge, sets, args.batch)
        if args.judge == ZERO_SHOT:
            more = {"model": args.clip_model, "weights": judge.clip.weights}
    result = tally(sets, verdicts)
    write_result(out, "removal", {"judge": {"name": args.judge, **more}, **result})
    print(summary(result), legend(result), sep="\n")
    print(out, file=sys.stderr)
    return 0


def open_sets(places: list[Path]) -> Sets:
    """Read the manifests of all folders and check their images; baselines come first.

    Raises:
        FileNotFoundError, ValueError: images are missing or damaged, were not made for pairs or for different lists of
            pairs, or the images without a negative prompt are missing.
    """
    sets = {folder: read_manifest(folder) for folder in find_sets(places)}
    sets = dict(sorted(sets.items(), key=lambda item: (item[1].method != plain_of(item[1].method), item[1].method)))
    for folder, manifest in sets.items():
        if not manifest.pairs:
            raise ValueError(f"{folder} was not made for pairs; make its images with `generate --pairs`")
        named = {row.pair for row in manifest.images}
        if named != set(range(len(manifest.pairs))):
            raise ValueError(
                f"{folder}: its images have pair numbers {sorted(named - {None})}{' or none' * (None in named)}; "
                f"expected a number for each image, and images of all {len(manifest.pairs)} pairs"
            )
        check_images(folder, manifest)
    lists = {manifest.pairs for manifest in sets.values()}
    if len(lists) > 1:
        raise ValueError(
            f"{', '.join(map(str, sets))} were made for {len(lists)} different lists of pairs; judge each list in a "
            "run of its own"
        )
    for folder, manifest in sets.items():
        if not any(is_baseline(other, manifest) for other in sets.values()):
            raise ValueError(
                f"{folder} has nothing to compare with; also make the images without the negative, with the same "
                f"model, timesteps, size and precision: --methods {plain_of(manifest.method)}"
            )
    return sets
