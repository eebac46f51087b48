"""The seam between what makes images and what judges them: a folder of images with a manifest.json.

`generate` writes it, every judge reads it, neither knows the other. Images of another program can be judged too: put
this beside them, everything else has a default:

    {"format": 1, "title": "my model", "images": [{"file": "0.png", "prompt": "a cat"}, ...]}

A manifest is written before the first image and says what will be there; nothing of it ever changes but its labels. An
image is there or still missing, and what generate made carries its own row (and what it was made with) in its PNG's
metadata.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snoopi_core.formats.checkpoint import OneStepRecipe
from training.evaluate.sets.pairs import Pair

NAME, COST = "manifest.json", "cost.json"


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Row(_Plain):
    """One image. `number`: of the images of the same prompt, from 0; `seed`: of its noise. `group`: the file that the
    prompt came from, such as one of HPSv2's styles. `pair`: of the manifest's pairs, where it was made for one."""

    file: str = Field(min_length=1, pattern=r"^[^/\\]+$")
    prompt: str
    negative: str | None = None
    number: int = 0
    seed: int | None = None
    group: str = ""
    pair: int | None = Field(default=None, ge=0)


class Model(_Plain):
    """What made the images. `fingerprint`: SHA-256 of its weights."""

    path: str
    fingerprint: str
    family: str


class Manifest(_Plain):
    """Of one folder: one model, one method.

    method: as `training.models.guidance.methods.Method` writes it. recipe: of a student; scheduler: of a teacher's
    many steps.
    prediction: what the network's output is taken for. batch: rows are made in whole batches of this many, so that not
    even rounding depends on processes and resumes. versions: of libraries; a resume with others is not refused.
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
        """All that decides what the images look like."""
        left_out = {"versions": True, "title": True, "protocol": True, "model": {"path"}}
        return self.model_dump(mode="json", exclude=left_out)

    def setup(self) -> str:
        """SHA-256 of all but the method and the prompts. A method is compared with the plain images of its own setup: a
        model may be measured at one step and at four."""
        names = ("recipe", "scheduler", "prediction", "size", "precision")
        kept = {"model": {"fingerprint"}} | dict.fromkeys(names, True)
        return _sha256(self.model_dump(mode="json", include=kept))

    def prompts(self) -> str:
        """SHA-256 of the list of images: their prompts, negatives and noise."""
        return _sha256([row.model_dump(mode="json") for row in self.images])

    def info(self, row: Row) -> dict[str, str]:
        """What the image of `row` carries in its metadata."""
        said = row.model_dump(mode="json", exclude_none=True)
        said |= self.model_dump(mode="json", include={"method", "precision", "scheduler", "prediction"})
        said["model"] = None if self.model is None else self.model.model_dump(mode="json", exclude={"path"})
        said["recipe"] = None if self.recipe is None else self.recipe.model_dump(mode="json")
        return {"prompt": row.prompt, "snoopi": json.dumps(said, sort_keys=True)}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        FileNotFoundError: there is no folder, or no manifest in it.
        ValueError: it is damaged, or another program's.
    """
    path = folder / NAME
    if not path.is_file():
        held = "no such folder" if not folder.is_dir() else f"it holds {held_by(folder) or 'nothing'}"
        raise FileNotFoundError(
            f"no images to judge in {folder}: {NAME} is missing ({held}); make one with "
            "`python -m training.evaluate generate`"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or NAME}: {e['msg']}" for e in error.errors()[:5])
        raise ValueError(f"{path} is no manifest of images ({said})") from error
    if not manifest.images:
        raise ValueError(f"{path} lists no image")
    files = [row.file for row in manifest.images]
    if len(set(files)) < len(files):
        twice = next(file for n, file in enumerate(files) if file in files[:n])
        raise ValueError(f"{path} lists {twice} twice; every image needs a file of its own")
    if bad := [row.pair for row in manifest.images if row.pair is not None and row.pair >= len(manifest.pairs)]:
        raise ValueError(f"{path}: pair {bad[0]} is named, there are {len(manifest.pairs)}")
    return manifest


def find_sets(places: list[Path]) -> list[Path]:
    """Folders with a manifest: those named, and those directly below one that is named.

    Raises:
        FileNotFoundError: a place holds none.
    """
    found: list[Path] = []
    for place in places:
        below = sorted(path.parent for path in place.glob(f"*/{NAME}")) if place.is_dir() else []
        if not (place / NAME).is_file() and not below:
            read_manifest(place)  # tells what is there
        found += [place] if (place / NAME).is_file() else below
    return list(dict.fromkeys(found))


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def held_by(folder: Path, *, but: str = "") -> str:
    """What lies in a folder, in a few words; "" for nothing."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != but)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
