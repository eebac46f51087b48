"""Pairs for removal: a prompt, what it must not show, and the words by which a zero-shot classifier tells.

The paper's six (SNOOPI, Table 7), the small world's, or a file of your own:

    [{"positive": "a photo of a pet", "negative": "cat", "unwanted": ["a photo of a cat"],
      "otherwise": ["a photo of a dog", "a photo of a bird"]}]
"""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.config import find_file

Words = tuple[Annotated[str, Field(min_length=1)], ...]
_LOST = ("an empty room", "a landscape", "an abstract pattern", "random noise", "a blurry, broken picture")


class Pair(BaseModel):
    """One pair. The words are needed by the classifier alone, and have defaults.

    unwanted, otherwise: pictures that show what the negative names, and ones that do not.
    kept, lost: pictures that show what the prompt asks for, and ones that do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    positive: str = Field(min_length=1)
    negative: str = Field(min_length=1)
    unwanted: Words = ()
    otherwise: Words = ()
    kept: Words = ()
    lost: Words = _LOST

    def classes(self) -> tuple[tuple[Words, Words], tuple[Words, Words]]:
        """(unwanted, otherwise) and (kept, lost), with the defaults filled in."""
        unwanted = self.unwanted or (f"{self.positive}, {self.negative}",)
        return (unwanted, self.otherwise or (self.positive,)), (self.kept or (self.positive,), self.lost)

    def __str__(self) -> str:
        return f"{self.positive} / {self.negative}"


def _person(negative: str, unwanted: str, otherwise: str) -> Pair:
    return Pair(
        positive="A photo of a person",
        negative=negative,
        unwanted=(f"a photo of {unwanted}",),
        otherwise=(f"a photo of {otherwise}",),
        kept=("a photo of a person", "a photo of a man", "a photo of a woman"),
    )


def _pet(negative: str) -> Pair:
    animals = ("cat", "dog", "rabbit", "bird", "hamster")
    return Pair(
        positive="A photo of a pet",
        negative=negative,
        unwanted=(f"a photo of a {negative}",),
        otherwise=tuple(f"a photo of a {animal}" for animal in animals if animal != negative),
        kept=("a photo of a pet", *(f"a photo of a {animal}" for animal in animals)),
    )


def _shape(positive: str, negative: str) -> Pair:
    return Pair(positive=positive, negative=negative)


PAIRS: dict[str, tuple[Pair, ...]] = {
    "paper": (
        _person("male", "a man", "a woman"),
        _person("female", "a woman", "a man"),
        _person("young", "a young person", "an old person"),
        _person("old", "an old person", "a young person"),
        _pet("cat"),
        _pet("dog"),
    ),
    # of docs/RESULTS.md: what the bundled student draws most, an easy and a hard one of each attribute
    "shapes": (
        _shape("a shape in the center", "red"),
        _shape("a shape, white background", "yellow"),
        _shape("a green shape", "triangle"),
        _shape("a blue shape", "square"),
        _shape("a square", "bottom"),
        _shape("a red shape", "left"),
        _shape("a shape at the top", "black background"),
        _shape("a triangle", "white background"),
    ),
}


def load_pairs(source: str) -> tuple[Pair, ...]:
    """Built-in pairs by name, or those of a JSON file.

    Raises:
        FileNotFoundError: it is neither.
        ValueError: the file holds something else, or no pair.
    """
    if source in PAIRS:
        return PAIRS[source]
    path = find_file(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"no pairs at {source!r}: expected a .json file of pairs, or one of {', '.join(PAIRS)}; a file holds "
            '[{"positive": "a photo of a pet", "negative": "cat"}, ...]'
        )
    try:
        pairs = TypeAdapter(tuple[Pair, ...]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in error.errors()[:5])
        raise ValueError(f"pairs {source}: {said}") from error
    except ValueError as error:
        raise ValueError(f"pairs {source}: not JSON, {error}") from error
    if not pairs:
        raise ValueError(f"pairs {source}: the list is empty")
    return pairs
