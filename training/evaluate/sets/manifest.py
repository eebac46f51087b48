"""The format that generators and judges share: a folder of images with a manifest.json.

`generate` writes it and every judge reads it. To judge images of another program, put this file next to them; all other
fields have defaults:

    {"format": 1, "title": "my model", "images": [{"file": "0.png", "prompt": "a cat"}, ...]}

The manifest is written before the first image and lists all images to be made; only its labels (title, protocol) may
change later. Each image that `generate` makes carries its own row and settings in the PNG metadata.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snoopi_core.formats.checkpoint import OneStepRecipe
from training.evaluate.sets.pairs import Pair, list_problems

NAME, COST = "manifest.json", "cost.json"


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Row(_Plain):
    """One image.

    number: counts the images of the same prompt, from 0. seed: of its noise. group: the file that the prompt came from,
    such as one of HPSv2's styles. pair: index into the manifest's pairs.
    """

    file: str = Field(min_length=1, pattern=r"^[^/\\]+$")
    prompt: str
    negative: str | None = None
    number: int = 0
    seed: int | None = None
    group: str = ""
    pair: int | None = Field(default=None, ge=0)


class Model(_Plain):
    """The model that made the images. fingerprint: SHA-256 of its weights."""

    path: str
    fingerprint: str
    family: str


class Manifest(_Plain):
    """The images of one model and one method.

    method: as text of `training.models.guidance.methods.Method`. recipe: of a student. scheduler: of a teacher.
    prediction: the network's prediction type. batch: images are always made in whole batches of this size, so that
    rounding does not depend on the number of processes or on a resume. versions: of libraries, for information.
    """

    format: Literal[1]
    title: str
    model: Model | None = None
    method: str = "none"
    recipe: OneStepRecipe | None = None
    seed: int = 0
    size: tuple[int, int] | None = None
    precision: str = "no"
    scheduler: str = ""
    prediction: str = ""
    batch: int = Field(default=1, ge=1)
    protocol: str = ""
    pairs: tuple[Pair, ...] = ()
    versions: dict[str, str] = {}
    images: tuple[Row, ...]

    def identity(self) -> dict[str, Any]:
        """All settings that the images depend on."""
        left_out = {"versions": True, "title": True, "protocol": True, "model": {"path"}}
        return self.model_dump(mode="json", exclude=left_out)

    def setup(self) -> str:
        """SHA-256 of all settings except the method and the prompts. Methods are compared within a setup: a model may
        be measured with one step and with four."""
        names = ("recipe", "scheduler", "prediction", "size", "precision")
        kept = {"model": {"fingerprint"}} | dict.fromkeys(names, True)
        return _sha256(self.model_dump(mode="json", include=kept))

    def prompts(self) -> str:
        """SHA-256 of the list of images with their prompts, negatives and seeds."""
        return _sha256([row.model_dump(mode="json") for row in self.images])

    def info(self, row: Row) -> dict[str, str]:
        """The PNG metadata of the image of `row`."""
        content = row.model_dump(mode="json", exclude_none=True)
        kept = dict.fromkeys(("method", "recipe", "precision", "scheduler", "prediction"), True)
        content |= self.model_dump(mode="json", include=kept | {"model": {"fingerprint", "family"}})
        return {"prompt": row.prompt, "snoopi": json.dumps(content, sort_keys=True)}


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder.

    Raises:
        FileNotFoundError: the folder or its manifest does not exist.
        ValueError: the manifest is damaged or inconsistent.
    """
    path = folder / NAME
    if not path.is_file():
        reason = "no such folder" if not folder.is_dir() else f"the folder holds {list_names(folder) or 'nothing'}"
        raise FileNotFoundError(
            f"no images to judge in {folder}: {NAME} is missing ({reason}); make one with "
            "`python -m training.evaluate generate`"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is not a manifest of images ({list_problems(error)})") from error
    if not manifest.images:
        raise ValueError(f"{path} lists no images")
    files = [row.file for row in manifest.images]
    if len(set(files)) < len(files):
        twice = next(file for n, file in enumerate(files) if file in files[:n])
        raise ValueError(f"{path} lists {twice} twice; every image needs its own file")
    if bad := [row.pair for row in manifest.images if row.pair is not None and row.pair >= len(manifest.pairs)]:
        raise ValueError(
            f"{path}: an image names pair {bad[0]}, but there are only {len(manifest.pairs)} pairs, from 0"
        )
    return manifest


def find_sets(places: list[Path]) -> list[Path]:
    """The folders with a manifest: each place that has one, else those directly below it.

    Raises:
        FileNotFoundError: there is none at a place.
    """
    found: list[Path] = []
    for place in places:
        below = sorted(path.parent for path in place.glob(f"*/{NAME}")) if place.is_dir() else []
        if not (place / NAME).is_file() and not below:
            read_manifest(place)  # raises, with the reason
        found += [place] if (place / NAME).is_file() else below
    return list(dict.fromkeys(found))


def list_names(folder: Path, *, ignore: str = "") -> str:
    """The first three names in a folder and the number of others, for messages; "" if it is empty."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != ignore)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
