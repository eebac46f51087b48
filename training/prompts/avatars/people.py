"""People, and the words that only suggest how they look."""

from __future__ import annotations

from training.prompts.avatars.accessories import shared
from training.prompts.avatars.tables import BRIGHT, PALE, Attribute, Role, Subject, Value, colours

PERSON = Subject(
    style="personas",
    nouns=("person", "portrait"),
    # Smaller and lower than DiceBear has them, so that there is room for a hat.
    fixed={
        "scale": [0.88, 0.88],
        "translateY": [6, 6],
        "noseVariant": "mediumRound",
        "eyesVariant": "open",
        "mouthVariant": "smile",
        "clothesVariant": "rounded",
        "facialHairProbability": 0,
    },
    attributes={
        "hair": Attribute(
            component="hair",
            values={
                "bald": Value(14, "bald", "a bald head"),
                "short": Value(24, "shortCombover", "short {} hair"),
                "afro": Value(16, "curly", "a {} afro"),
                "long": Value(30, "extraLong", "long {} hair"),
                "pigtails": Value(16, "pigtails", "{} pigtails"),
            },
        ),
        "hair colour": colours(
            "hair",
            "{} hair",
            "with",
            {"black": "#2b2438", "blonde": "#f2c24f", "red": "#d4472a", "gray": "#b4b8c8", "pink": "#f06aa8"},
            joins="hair",
            hair=("short", "afro", "long", "pigtails"),
        ),
        "skin": colours("skin", "{} skin", "with", {"light": "#f8d0b8", "tan": "#d9976a", "dark": "#8a5434"}),
        "clothes": colours("clothing", "a {} sweater", "wearing", BRIGHT),
        **shared(),
        "background": colours("background", "a {} background", "on", PALE),
    },
    roles=(
        Role(
            word="man",
            likely={
                "hair": {"short": 65, "bald": 25, "afro": 10},
                "hair colour": {"black": 50, "blonde": 20, "red": 15, "gray": 15},
                "facial hair": {"beard": 60, "none": 40},
            },
        ),
        Role(
            word="woman",
            likely={"hair": {"long": 70, "pigtails": 20, "afro": 10}, "facial hair": {"none": 100}},
        ),
        Role(
            word="lumberjack",
            likely={
                "hair": {"short": 75, "bald": 25},
                "clothes": {"red": 90, "green": 10},
                "facial hair": {"beard": 95, "none": 5},
                "headwear": {"none": 90, "horns": 10},
            },
        ),
        Role(
            word="professor",
            likely={
                "hair": {"bald": 30, "short": 40, "afro": 30},
                "hair colour": {"gray": 100},
                "eyewear": {"glasses": 90, "none": 10},
                "headwear": {"none": 90, "top hat": 10},
                "around": {"bow tie": 60, "none": 40},
            },
        ),
        Role(
            word="rock star",
            likely={
                "hair": {"long": 90, "afro": 10},
                "eyewear": {"sunglasses": 92, "none": 8},
                "headwear": {"none": 85, "horns": 15},
            },
        ),
        Role(
            word="king",
            likely={
                "facial hair": {"beard": 75, "none": 25},
                "headwear": {"crown": 95, "none": 5},
                "clothes": {"purple": 60, "red": 40},
            },
        ),
        Role(
            word="clown",
            likely={
                "hair": {"afro": 90, "bald": 10},
                "hair colour": {"red": 60, "pink": 40},
                "facial hair": {"none": 100},
                "headwear": {"party hat": 85, "none": 15},
                "around": {"bow tie": 80, "none": 20},
            },
        ),
    ),
)
