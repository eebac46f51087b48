"""`removal`: how often a negative prompt removes what it names, and what else it costs (SNOOPI, Tables 3 and 7).

Success is the share of images without the unwanted feature. It counts an image that was wiped out as well, so the
shares of images that keep the prompt, that are sound, and that are all three at once ("clean") stand beside it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from training.evaluate.judges import PEOPLE, ZERO_SHOT, Judge, Verdict, load_judge
from training.evaluate.judges.intervals import wilson
from training.evaluate.metrics.batching import batches
from training.evaluate.sets.image_files import check_images, read_image
from training.evaluate.sets.manifest import Manifest, find_sets, read_manifest
from training.evaluate.sets.results import REMOVAL, Result, about_set, write_result
from training.models.guidance.methods import Method

SHARES = ("absent", "kept", "valid", "clean")
Sets = dict[Path, Manifest]
Verdicts = dict[Path, dict[str, Verdict]]  # of each folder's files


def removal(args: argparse.Namespace) -> int:
    """The command; see `training.evaluate.cli`. Raises OSError and ValueError, in words for the user."""
    sets = open_sets(args.folders)
    out = args.out or args.folders[0] / REMOVAL.format(re.sub(r"\W+", "-", args.judge))
    if args.judge == PEOPLE:
        from training.evaluate.judges.people import read_answers, write_page

        if not args.answers:
            page = write_page(args.page or args.folders[0] / "people.html", sets, order=args.order)
            print(f"{page}: open it in a browser, judge, save, and give the file to --answers")
            return 0
        verdicts, more = read_answers(args.answers, sets)
    else:
        judge = load_judge(args)
        verdicts, more = judge_sets(judge, sets, args.batch), {}
        if args.judge == ZERO_SHOT:
            more = {"model": args.clip_model, "weights": judge.clip.weights}
    result = tally(sets, verdicts)
    write_result(out, "removal", {"judge": {"name": args.judge, **more}, **result})
    print(said(result))
    print(f"{out}", file=sys.stderr)
    return 0


def open_sets(places: list[Path]) -> Sets:
    """The images of every method, checked.

    Raises:
        FileNotFoundError, ValueError: images are missing or damaged, were made for no pairs or for several lists of
            them, or there are none without a negative to compare with.
    """
    sets = {folder: read_manifest(folder) for folder in find_sets(places)}
    sets = dict(sorted(sets.items(), key=lambda item: (item[1].method != plain_of(item[1].method), item[1].method)))
    for folder, manifest in sets.items():
        if not manifest.pairs:
            raise ValueError(f"{folder} was not made for pairs; make its images with `generate --pairs`")
        named = {row.pair for row in manifest.images}
        if named != set(range(len(manifest.pairs))):
            raise ValueError(
                f"{folder}: its images name pairs {sorted(named - {None})}{' or none' if None in named else ''}; "
                f"expected each to name one, and images of all {len(manifest.pairs)}"
            )
        check_images(folder, manifest)
    lists = {manifest.pairs for manifest in sets.values()}
    if len(lists) > 1:
        raise ValueError(f"{', '.join(map(str, sets))} were made for {len(lists)} lists of pairs; judge them apart")
    for folder, manifest in sets.items():
        if not any(_is_before(other, manifest) for other in sets.values()):
            raise ValueError(
                f"{folder} has nothing to compare with; make the images before, too, with the same model, timesteps, "
                f"size and precision: --methods {plain_of(manifest.method)}"
            )
    return sets


def judge_sets(judge: Judge, sets: Sets, batch: int) -> Verdicts:
    """Every verdict, with a bar."""
    found: Verdicts = {}
    total = sum(len(manifest.images) for manifest in sets.values())
    with tqdm(total=total, desc="judge", unit="image", mininterval=1) as bar:
        for folder, manifest in sets.items():
            found[folder] = {}
            for number, pair in enumerate(manifest.pairs):
                files = [row.file for row in manifest.images if row.pair == number]
                for some in batches(files, batch):
                    verdicts = judge([read_image(folder / file) for file in some], pair)
                    found[folder] |= dict(zip(some, verdicts, strict=True))
                    bar.update(len(some))
    return found


def tally(sets: Sets, verdicts: Verdicts) -> Result:
    """Shares and their intervals: of each pair, over all pairs, and over the half with the lower baseline."""
    pairs = next(iter(sets.values())).pairs
    rows = {
        folder: [
            shares(
                verdicts[folder][row.file] for row in manifest.images if row.pair == n and row.file in verdicts[folder]
            )
            for n in range(len(pairs))
        ]
        for folder, manifest in sets.items()
    }
    about, result = {folder: about_set(folder, manifest) for folder, manifest in sets.items()}, []
    for folder, manifest in sets.items():
        plain = [other for other, m in sets.items() if _is_before(m, manifest)]
        before = min(plain, key=lambda other: sets[other].images != manifest.images)  # of the same noise, if there are
        lower = lower_half(rows[before])
        result.append(
            about[folder]
            | {
                "pairs": rows[folder],
                "means": {"all": mean(rows[folder]), "lower": mean([rows[folder][n] for n in lower])},
                "lower": lower,
                "before": about[before]["digest"],
            }
        )
    return {"pairs": [pair.model_dump(mode="json", exclude_defaults=True) for pair in pairs], "sets": result}


def shares(verdicts: Iterable[Verdict]) -> Result:
    """Of one pair: the number of images, and each share with its 95 % interval; None where the judge cannot tell."""
    judged = [asdict(verdict) for verdict in verdicts]
    for row in judged:
        whole = (row["absent"], row["kept"], row["valid"])
        row["clean"] = None if None in whole else all(whole)
    return {"images": len(judged)} | {name: _share([row[name] for row in judged]) for name in SHARES}


def mean(rows: Sequence[Result]) -> Result:
    """Over pairs; the interval is that of the pooled images."""
    images = sum(row["images"] for row in rows)
    found: Result = {"images": images}
    for name in SHARES:
        values = [row[name] for row in rows]
        found[name] = None if None in values else _with_interval(fmean(v["share"] for v in values), images)
    return found


def lower_half(before: Sequence[Result]) -> list[int]:
    """The half of the pairs whose unwanted feature is there most without a negative: the paper's Table 3."""
    order = sorted(range(len(before)), key=lambda n: before[n]["absent"]["share"])
    return sorted(order[: max(1, len(order) // 2)])


def said(result: Result) -> str:
    """The means, a line each set."""
    lines = [f"{'':24s} {'all ' + str(len(result['pairs'])) + ' pairs':44s}   lower-baseline half"]
    for row in result["sets"]:
        text = "   ".join(
            "  ".join(f"{name} {_number(mean[name])}" for name in SHARES) for mean in row["means"].values()
        )
        lines.append(f"{row['method']:24s} {text}")
    return "\n".join(lines)


def _number(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{value['share']:.3f}"


def _share(values: list[bool | None]) -> dict[str, Any] | None:
    if not values or None in values:
        return None
    return _with_interval(fmean(map(bool, values)), len(values))


def _with_interval(share: float, count: int) -> dict[str, Any]:
    low, high = wilson(share, count)
    return {"share": share, "low": low, "high": high}


def _is_before(plain: Manifest, manifest: Manifest) -> bool:
    return plain.method == plain_of(manifest.method) and plain.setup() == manifest.setup()


def plain_of(method: str) -> str:
    """The method that another one is compared with; "none" for those of other programs."""
    try:
        return str(Method.parse(method).plain())
    except ValueError:
        return "none"
