"""Pairs for measuring removal: a prompt, a negative prompt, and sentences for the zero-shot classifier.

They are the paper's six (SNOOPI, Table 7), those for the small worlds, or a JSON file of your own:

    [{"positive": "a photo of a pet", "negative": "cat", "unwanted": ["a photo of a cat"],
      "otherwise": ["a photo of a dog", "a photo of a bird"]}]
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.config import find_file

Words = tuple[Annotated[str, Field(min_length=1)], ...]
_LOST = ("an empty room", "a landscape", "an abstract pattern", "random noise", "a blurry, broken picture")


class Pair(BaseModel):
    """One pair. Only the classifier uses the sentences, which all have defaults.

    unwanted, otherwise: describe images that show what the negative names, and images that do not.
    kept, lost: describe images that show what the prompt asks for, and images that do not.
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


# What the student of the shapes' world draws most often: for each attribute an easy pair and a hard one.
_SHAPES = {
    "a shape in the center": "red",
    "a shape, white background": "yellow",
    "a green shape": "triangle",
    "a blue shape": "square",
    "a square": "bottom",
    "a red shape": "left",
    "a shape at the top": "black background",
    "a triangle": "white background",
}
# The avatars' world: as the paper's, a general word and something that it may show.
_AVATARS = (
    ("a person", "glasses"),
    ("a person", "a beard"),
    ("a person", "a hat"),
    ("a person", "long hair"),
    ("a monster", "horns"),
    ("a planet", "a ring"),
    ("a plant", "glasses"),
    ("a planet", "a beard"),
)
PAIRS: dict[str, tuple[Pair, ...]] = {
    "paper": (
        _person("male", "a man", "a woman"),
        _person("female", "a woman", "a man"),
        _person("young", "a young person", "an old person"),
        _person("old", "an old person", "a young person"),
        _pet("cat"),
        _pet("dog"),
    ),
    "avatars": tuple(Pair(positive=positive, negative=negative) for positive, negative in _AVATARS),
    "shapes": tuple(Pair(positive=positive, negative=negative) for positive, negative in _SHAPES.items()),
}


def load_pairs(source: str) -> tuple[Pair, ...]:
    """Built-in pairs by name, or those of a JSON file.

    Raises:
        FileNotFoundError: `source` is neither.
        ValueError: the file is not valid JSON, is not a list of pairs, or is empty.
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
        pairs = TypeAdapter(tuple[Pair, ...]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"pairs {source}: {list_problems(error)}") from error
    if not pairs:
        raise ValueError(f"pairs {source}: the list is empty")
    return pairs


def list_problems(error: ValidationError) -> str:
    """The first five problems, each with its place in the file."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
