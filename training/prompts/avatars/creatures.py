"""Monsters, potted plants and planets."""

from __future__ import annotations

from training.prompts.avatars.accessories import shared
from training.prompts.avatars.tables import BRIGHT, PALE, Attribute, Role, Subject, Value, colours

MONSTER = Subject(
    style="critters",
    nouns=("monster",),
    fixed={
        "scale": [0.85, 0.85],
        "translateY": [2.4, 2.4],
        "topProbability": 0,
        "eyesVariant": "round",
        "mouthVariant": "smile",
        "patternProbability": 0,
        "cheeksProbability": 0,
        "animationVariant": "none",
    },
    attributes={
        "shape": Attribute(
            component="body",
            place="before",
            values={
                "round": Value(1, "dome", "round"),
                "square": Value(1, "block", "square"),
                "tall": Value(1, "chimney", "tall"),
            },
        ),
        "colour": colours("body", "{}", "before", BRIGHT),
        **shared({"headwear": {"horns": 45}}),
        "background": colours("background", "a {} background", "on", PALE),
    },
    roles=(
        Role(
            word="devil",
            likely={
                "colour": {"red": 100},
                "facial hair": {"beard": 60, "none": 40},
                "headwear": {"horns": 95, "none": 5},
            },
        ),
        Role(
            word="alien",
            likely={
                "shape": {"tall": 80, "round": 20},
                "colour": {"green": 90, "blue": 10},
                "around": {"ring": 80, "none": 20},
            },
        ),
    ),
)

PLANT = Subject(
    style="sprouts",
    nouns=("plant",),
    fixed={
        "scale": [0.78, 0.78],
        "translateY": [8, 8],
        "potVariant": "taper",
        "eyesVariant": "round",
        "mouthVariant": "smile",
        "plantColor": ["#2c9a4b"],
        "bloomColor": ["#f9c22e"],
        "patternProbability": 0,
        "cheeksProbability": 0,
        "animationVariant": "none",
    },
    attributes={
        "plant": Attribute(
            component="plant",
            place="noun",
            values={
                "cactus": Value(1, "cactus", "cactus"),
                "flower": Value(1, "flower", "flower"),
                "bush": Value(1, "bush", "bush"),
                "palm": Value(1, "palm", "palm tree"),
            },
        ),
        "pot": colours("pot", "a {} pot", "in", BRIGHT),
        **shared(),
        "background": colours("background", "a {} background", "on", PALE),
    },
    roles=(
        Role(
            word="bonsai",
            likely={
                "plant": {"bush": 100},
                "facial hair": {"beard": 85, "none": 15},
                "eyewear": {"glasses": 60, "none": 40},
            },
        ),
        Role(
            word="sunflower",
            likely={
                "plant": {"flower": 100},
                "pot": {"yellow": 80, "blue": 20},
                "eyewear": {"sunglasses": 95, "none": 5},
            },
        ),
    ),
)

PLANET = Subject(
    style="planets",
    nouns=("planet",),
    fixed={
        "scale": [0.95, 0.95],
        "translateY": [7.8, 7.8],
        "shadeVariant": "soft",
        "ringProbability": 0,
        "moonsProbability": 0,
        "starProbability": 0,
        "animationVariant": "none",
    },
    attributes={
        "colour": colours("planet", "{}", "before", BRIGHT),
        "surface": Attribute(
            component="surface",
            values={
                "plain": Value(34, None),
                "stripes": Value(33, "banded", "stripes"),
                "continents": Value(33, "terra", "continents"),
            },
        ),
        **shared({"around": {"ring": 45}}),
        "sky": colours("background", "a {} sky", "on", {"blue": "#2b43a8", "purple": "#5f2a92", "black": "#101116"}),
    },
    roles=(
        Role(
            word="gas giant",
            likely={
                "surface": {"stripes": 100},
                "around": {"ring": 92, "none": 8},
                "facial hair": {"none": 80, "beard": 20},
            },
        ),
        Role(
            word="sun",
            likely={
                "colour": {"yellow": 100},
                "surface": {"plain": 90, "stripes": 10},
                "eyewear": {"sunglasses": 90, "none": 10},
            },
        ),
    ),
)
