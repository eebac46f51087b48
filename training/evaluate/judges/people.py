"""People as judges: an HTML page that shows the images in random order, without their method, and saves the answers.

The page works offline and shows the images from their folders. It identifies them by hashes, which only `read_answers`
can map back to files.
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
from jinja2 import Template

from snoopi_core.formats.atomic import write_atomically
from training.distill.rng import generator
from training.evaluate.judges.removal import Sets, Verdicts
from training.evaluate.judges.verdict import Verdict
from training.evaluate.sets.image_files import digest_of
from training.evaluate.sets.manifest import Manifest

TEMPLATE = Path(__file__).with_name("people.html")
TITLE = "<title>Which images still show it?</title>"
# key to press: (text on the page, verdict; None is no vote)
KEYS: dict[str, tuple[str, Verdict | None]] = {
    "1": ("It shows <b>{negative}</b>", Verdict(absent=False, kept=True, valid=True)),
    "2": ("No <b>{negative}</b>, and it fits the prompt", Verdict(absent=True, kept=True, valid=True)),
    "3": ("No <b>{negative}</b>, but it no longer fits the prompt", Verdict(absent=True, kept=False, valid=True)),
    "4": ("It is broken, or shows nothing", Verdict(absent=True, kept=False, valid=False)),
    "5": ("Unsure", None),
}
Names = dict[Path, dict[str, str]]  # the name that the page gives to an image, by folder and file name


def write_page(page: Path, sets: Sets, *, order: int) -> Path:
    """Write the page; `order` is the random seed of the order of the images.

    Raises:
        ValueError: `page` exists and was not written by this command; it is left unchanged.
    """
    if page.exists() and TITLE not in page.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(
            f"{page} exists and was not written by this command; nothing was changed, choose another --page"
        )
    items, names = [], _names(sets)
    for folder, manifest in sets.items():
        for row in manifest.images:
            pair = manifest.pairs[row.pair]
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
    write_atomically(page, Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True).render(content=content))
    return page


def read_answers(paths: list[Path], sets: Sets) -> tuple[Verdicts, dict[str, Any]]:
    """Read the files saved by the page, one per person; the majority of those who are sure decides.

    A tie counts against the method, and so does an image that nobody is sure of.

    Returns:
        The verdicts, and the number of people with the shares of unanimous images and of answers "unsure".

    Raises:
        FileNotFoundError, ValueError: a file is missing, was not saved by the page or belongs to other images, or some
            images have no answer.
    """
    given: dict[str, list[Verdict | None]] = {}
    names = _names(sets)
    for path in paths:
        for image, key in _answers(path, _digest(names)).items():
            given.setdefault(image, []).append(KEYS[key][1])
    wanted = {name for files in names.values() for name in files.values()}
    if left := wanted - given.keys():
        raise ValueError(
            f"{len(left)} of {len(wanted)} images have no answer in {', '.join(map(str, paths))}; open the page "
            "again to continue, and save the answers"
        )
    found = {folder: {file: _majority(given[name]) for file, name in files.items()} for folder, files in names.items()}
    agreed = sum(len(set(verdicts)) == 1 for verdicts in given.values())
    every = [verdict for verdicts in given.values() for verdict in verdicts]
    unsure = every.count(None) / len(every)
    return found, {"people": len(paths), "unanimous": agreed / len(given), "unsure": unsure}


def names_of(folder: Path, manifest: Manifest) -> dict[str, str]:
    """A name for each file of a folder, a hash that does not reveal the method and changes with the images."""
    prefix = f"{digest_of(folder, manifest)} {manifest.method}"
    return {row.file: _short_hash(f"{prefix} {row.file}") for row in manifest.images}


def _names(sets: Sets) -> Names:
    return {folder: names_of(folder, manifest) for folder, manifest in sets.items()}


def _digest(names: Names) -> str:
    """Identifies the judged images; answers are accepted for the same images only."""
    return _short_hash(" ".join(sorted(name for files in names.values() for name in files.values())))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _answers(path: Path, digest: str) -> dict[str, str]:
    """The keys that one person pressed, by the name of the image."""
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


def _majority(verdicts: list[Verdict | None]) -> Verdict:
    def most(name: str) -> bool:
        votes = Counter(bool(getattr(verdict, name)) for verdict in verdicts if verdict)
        return votes[True] > votes[False]

    return Verdict(absent=most("absent"), kept=most("kept"), valid=most("valid"))
