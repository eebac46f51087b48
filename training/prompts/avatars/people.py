"""People, and the words that only suggest how they look."""

from __future__ import annotations

from training.prompts.avatars.tables import Attribute, Role, Subject, Value, colours

PERSON = Subject(
    style="personas",
    nouns=("person", "portrait"),
    fixed={"noseVariant": "mediumRound"},
    attributes={
        "hair": Attribute(
            component="hair",
            values={
                "bald": Value(5, "bald", "a bald head"),
                "short": Value(12, "shortCombover", "short {} hair"),
                "curly": Value(8, "curlyHighTop", "curly {} hair"),
                "afro": Value(7, "curly", "a {} afro"),
                "long": Value(14, "extraLong", "long {} hair"),
                "bob": Value(7, "bobCut", "a {} bob"),
                "bun": Value(6, "straightBun", "a {} bun"),
                "pigtails": Value(8, "pigtails", "{} pigtails"),
                "mohawk": Value(5, "mohawk", "a {} mohawk"),
                "beanie": Value(14, "beanie", "a beanie"),
                "cap": Value(14, "cap", "a cap"),
            },
        ),
        "hair colour": colours(
            "hair",
            "{} hair",
            "with",
            {
                "black": "#2b2438",
                "brown": "#7a4630",
                "blonde": "#f2c24f",
                "red": "#d4472a",
                "gray": "#b4b8c8",
                "pink": "#f06aa8",
            },
            joins="hair",
            hair=("short", "curly", "afro", "long", "bob", "bun", "pigtails", "mohawk"),
        ),
        "eyes": Attribute(
            component="eyes",
            values={
                "open": Value(28, "open"),
                "glasses": Value(40, "glasses", "glasses"),
                "sunglasses": Value(12, "sunglasses", "sunglasses"),
                "wink": Value(10, "wink", "a wink"),
                "closed": Value(10, "happy", "closed eyes"),
            },
        ),
        "facial hair": Attribute(
            component="facialHair",
            values={
                "none": Value(42, None),
                "beard": Value(33, "beardMustache", "a beard"),
                "moustache": Value(14, "pyramid", "a moustache"),
                "goatee": Value(11, "goatee", "a goatee"),
            },
        ),
        "mouth": Attribute(
            component="mouth",
            values={
                "smile": Value(30, "smile", "a smile"),
                "grin": Value(20, "bigSmile", "a grin"),
                "frown": Value(15, "frown", "a frown"),
                "open": Value(12, "surprise", "an open mouth"),
                "lipstick": Value(13, "lips", "lipstick"),
                "pacifier": Value(10, "pacifier", "a pacifier"),
            },
            needs={"facial hair": ("none", "moustache", "goatee")},  # the beard has a mouth of its own
        ),
        "skin": colours(
            "skin",
            "{} skin",
            "with",
            {"light": "#f6c9b4", "tan": "#dd9a72", "brown": "#a9694b", "dark": "#6b3f2c"},
        ),
        "clothes": Attribute(
            component="clothes",
            place="wearing",
            values={
                "sweater": Value(50, "rounded", "a {} sweater"),
                "checkered": Value(30, "checkered", "a {} checkered shirt"),
                "top": Value(20, "small", "a {} tank top"),
            },
        ),
        "clothes colour": colours(
            "clothing",
            "{} clothes",
            "wearing",
            {
                "blue": "#456dff",
                "green": "#4aa84e",
                "red": "#e24553",
                "purple": "#8a55d6",
                "yellow": "#f3b63a",
                "black": "#3a3a46",
            },
            joins="clothes",
        ),
        "background": colours(
            "background",
            "a {} background",
            "on",
            {
                "blue": "#a9d8ff",
                "green": "#b5e8b9",
                "pink": "#ffc4dc",
                "yellow": "#ffeaa0",
                "purple": "#d3c4fb",
                "white": "#f7f7f7",
            },
        ),
    },
    roles=(
        Role(
            word="lumberjack",
            likely={
                "facial hair": {"beard": 95, "moustache": 5},
                "hair": {"beanie": 60, "short": 25, "bald": 15},
                "clothes": {"checkered": 100},
            },
        ),
        Role(
            word="professor",
            likely={
                "eyes": {"glasses": 100},
                "hair": {"bald": 25, "short": 25, "curly": 25, "bun": 25},
                "hair colour": {"gray": 85, "brown": 15},
            },
        ),
        Role(
            word="rock star",
            likely={
                "eyes": {"sunglasses": 90, "wink": 10},
                "hair": {"long": 60, "mohawk": 40},
                "clothes": {"top": 60, "sweater": 40},
            },
        ),
        Role(
            word="baby",
            likely={
                "mouth": {"pacifier": 85, "open": 15},
                "hair": {"bald": 55, "pigtails": 25, "curly": 20},
                "facial hair": {"none": 100},
                "eyes": {"open": 60, "closed": 40},
            },
        ),
    ),
)
