"""People as judges: a page that shows the images in a blind order and saves the keys that were pressed.

It works offline, from the folder that it was written to: it shows the images where they lie, and says of none how it
was made. What it saves names images by numbers that mean something to `read_answers` alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from snoopi_core.formats.atomic import write_atomically
from training.distill.rng import generator
from training.evaluate.judges import Verdict
from training.evaluate.judges.people_page import PAGE
from training.evaluate.sets.image_files import digest_of
from training.evaluate.sets.manifest import Manifest

# key: (what it says on the page, what it means)
KEYS: dict[str, tuple[str, Verdict]] = {
    "1": ("It shows <b>{negative}</b>", Verdict(absent=False, kept=True, valid=True)),
    "2": ("No <b>{negative}</b>, and it fits the prompt", Verdict(absent=True, kept=True, valid=True)),
    "3": ("No <b>{negative}</b>, but it no longer fits the prompt", Verdict(absent=True, kept=False, valid=True)),
    "4": ("It is broken, or shows nothing", Verdict(absent=True, kept=False, valid=False)),
}
Sets = dict[Path, Manifest]


def write_page(page: Path, sets: Sets, *, order: int) -> Path:
    """Write the page; `order` is the seed of the order that the images are shown in.

    Raises:
        ValueError: another file of that name is there; it stays as it is.
    """
    if page.exists() and not page.read_text(encoding="utf-8", errors="replace").startswith(PAGE[:60]):
        raise ValueError(f"{page} is there already and is no such page; nothing was written, choose another --page")
    items, names = [], _names(sets)
    for folder, manifest in sets.items():
        for row in manifest.images:
            pair = manifest.pairs[row.pair or 0]  # `open_sets` has seen that all have one
            place = Path(os.path.relpath(folder / row.file, page.parent)).as_posix()
            name = names[folder][row.file]
            items.append({"id": name, "src": quote(place), "prompt": pair.positive, "not": pair.negative})
    shuffled = torch.randperm(len(items), generator=generator(order, "people")).tolist()
    content = {
        "images": _digest(names),
        "order": order,
        "keys": {key: text for key, (text, _) in KEYS.items()},
        "items": [items[n] for n in shuffled],
    }
    # "</script>" would end the script, and "<!--" before it would keep it from ending
    write_atomically(page, PAGE.replace("CONTENT", json.dumps(content).replace("<", "\\u003c")))
    return page


def read_answers(paths: list[Path], sets: Sets) -> tuple[dict[Path, dict[str, Verdict]], dict[str, Any]]:
    """Verdicts by folder and file, the majority's where several people judged; and what is said of the judges.

    A draw counts against the method: as unwanted, lost, broken.

    Raises:
        FileNotFoundError, ValueError: no such file, none of a page's, of other images, or images were left out.
    """
    given: dict[str, list[Verdict]] = {}
    names = _names(sets)
    for path in paths:
        for image, key in _answers(path, _digest(names)).items():
            given.setdefault(image, []).append(KEYS[key][1])
    wanted = {name for files in names.values() for name in files.values()}
    if left := wanted - given.keys():
        raise ValueError(
            f"{len(left)} of {len(wanted)} images have no answer in {', '.join(map(str, paths))}; open the page again, "
            "it goes on where it was left"
        )
    found = {folder: {file: _majority(given[name]) for file, name in files.items()} for folder, files in names.items()}
    agreed = sum(len(set(verdicts)) == 1 for verdicts in given.values())
    return found, {"people": len(paths), "unanimous": agreed / len(given)}


def names_of(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Of each file of a folder, a name that does not tell its method. Other images have other names."""
    whose = f"{digest_of(folder, manifest)} {manifest.method}"
    return {row.file: _short(f"{whose} {row.file}") for row in manifest.images}


def _names(sets: Sets) -> dict[Path, dict[str, str]]:
    return {folder: names_of(folder, manifest) for folder, manifest in sets.items()}


def _digest(names: dict[Path, dict[str, str]]) -> str:
    """Of all images that are judged; answers belong to these alone."""
    return _short(" ".join(sorted(name for files in names.values() for name in files.values())))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _answers(path: Path, digest: str) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, answers = content["images"], dict(content["answers"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no answers of people.html ({error})") from error
    if images != digest:
        raise ValueError(f"{path} holds answers about other images; name the folders that its page was written for")
    if wrong := sorted({str(key) for key in answers.values()} - KEYS.keys()):
        raise ValueError(f"{path}: answer {wrong[0]!r} is not known; expected one of {', '.join(KEYS)}")
    return answers


def _majority(verdicts: list[Verdict]) -> Verdict:
    def most(name: str) -> bool:
        votes = Counter(bool(getattr(verdict, name)) for verdict in verdicts)
        return votes[True] > votes[False]

    return Verdict(absent=most("absent"), kept=most("kept"), valid=most("valid"))
