"""How often a negative prompt removes what it names, and what else it costs (SNOOPI, Tables 3 and 7).

The paper's success rate is the share of images without the unwanted feature. An image that was wiped out counts as a
success as well, so three more shares are given: images that keep the prompt, that are valid, and all three ("clean").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any

from tqdm import tqdm

from training.evaluate.judges.intervals import wilson
from training.evaluate.judges.verdict import Judge, Verdict
from training.evaluate.metrics.batching import batches
from training.evaluate.sets.image_files import read_image
from training.evaluate.sets.manifest import Manifest
from training.evaluate.sets.results import Result, about_set
from training.models.guidance.methods import Method

SHARES = ("absent", "kept", "valid", "clean")
_LEGEND = """\
Shares of images [95 % interval]. absent: what the negative names is not in the image; kept: what the prompt asks for
is; valid: the image is not broken; clean: all three. Pairs with most to remove: the half whose images without the
negative show most often what it names (the paper's Table 3).
none: without the negative prompt; nasa:ALPHA: with it, where alpha is how strongly NASA subtracts it."""
Sets = dict[Path, Manifest]  # by folder
Verdicts = dict[Path, dict[str, Verdict]]  # by folder and file name


def judge_sets(judge: Judge, sets: Sets, batch: int) -> Verdicts:
    """Judge all images, `batch` at a time, with a progress bar."""
    found: Verdicts = {}
    total = sum(len(manifest.images) for manifest in sets.values())
    with tqdm(total=total, desc="judge", unit="image", mininterval=1, disable=None) as bar:
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
    """Shares and their intervals: by pair, over all pairs, and over the half of the pairs with the lower baseline."""
    pairs = next(iter(sets.values())).pairs
    rows = {
        folder: [
            shares(found[row.file] for row in sets[folder].images if row.pair == n and row.file in found)
            for n in range(len(pairs))
        ]
        for folder, found in verdicts.items()
    }
    about = {folder: about_set(folder, manifest) for folder, manifest in sets.items()}
    result = []
    for folder, manifest in sets.items():
        plain = [other for other, m in sets.items() if is_baseline(m, manifest)]
        before = min(plain, key=lambda other: sets[other].images != manifest.images)  # prefer the same noise
        lower = lower_half(rows[before])
        means = {"all": mean(rows[folder]), "lower": mean([rows[folder][n] for n in lower])}
        result.append(
            about[folder] | {"pairs": rows[folder], "means": means, "lower": lower, "before": about[before]["digest"]}
        )
    return {"pairs": [pair.model_dump(mode="json", exclude_defaults=True) for pair in pairs], "sets": result}


def shares(verdicts: Iterable[Verdict]) -> Result:
    """The number of images of one pair, and each share with its 95 % interval (None if the judge cannot decide)."""
    judged = [asdict(verdict) for verdict in verdicts]
    for row in judged:
        values = (row["absent"], row["kept"], row["valid"])
        row["clean"] = None if None in values else all(values)
    found: Result = {"images": len(judged)}
    for name in SHARES:
        values = [row[name] for row in judged]
        found[name] = None if not values or None in values else _with_interval(fmean(map(bool, values)), len(values))
    return found


def mean(rows: Sequence[Result]) -> Result:
    """The mean over pairs; its interval is that of a rate over all images of these pairs."""
    images = sum(row["images"] for row in rows)
    found: Result = {"images": images}
    for name in SHARES:
        values = [row[name] for row in rows]
        found[name] = None if None in values else _with_interval(fmean(v["share"] for v in values), images)
    return found


def lower_half(before: Sequence[Result]) -> list[int]:
    """The half of the pairs where the unwanted feature is most frequent without a negative: the paper's Table 3."""
    order = sorted(range(len(before)), key=lambda n: before[n]["absent"]["share"])
    return sorted(order[: max(1, len(order) // 2)])


def summary(result: Result) -> str:
    """The means as a table, one line for each set of images."""
    pairs, lower = len(result["pairs"]), len(result["sets"][0]["lower"])
    titles = {"all": f"all {pairs} pairs", "lower": f"the {lower} with most to remove"}
    lines = [f"{'':28s}" + "".join(f"{name:19s}" for name in SHARES).rstrip()]
    for which, title in titles.items():
        lines.append(title)
        for row in result["sets"]:
            cells = "".join(f"{share_text(row['means'][which][name]):19s}" for name in SHARES)
            lines.append(f"  {row['method']:26s}{cells}".rstrip())
    return "\n".join(lines)


def legend(result: Result) -> str:
    """What the words of `summary` mean, and which pairs it is about."""
    pairs = "; ".join(f"{pair['positive']} - {pair['negative']}" for pair in result["pairs"])
    # a list of one's own may be long
    return "\n".join([_LEGEND, fill(f"pairs (prompt - negative): {pairs}", 118, max_lines=8, placeholder=" ...")])


def share_text(value: dict[str, float] | None) -> str:
    """A share and its interval; "-" if the judge does not decide it."""
    return "-" if value is None else f"{value['share']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def plain_of(method: str) -> str:
    """The method that `method` is compared with; "none" if it is not a method of this project."""
    try:
        return str(Method.parse(method).plain())
    except ValueError:
        return "none"


def is_baseline(plain: Manifest, manifest: Manifest) -> bool:
    """Whether `plain` holds the images without a negative prompt that `manifest` is compared with."""
    return plain.method == plain_of(manifest.method) and plain.setup() == manifest.setup()


def _with_interval(share: float, count: int) -> dict[str, Any]:
    low, high = wilson(share, count)
    return {"share": share, "low": low, "high": high}
