"""Monsters, potted plants and planets."""

from __future__ import annotations

from training.prompts.avatars.tables import BRIGHT, DEEP, Attribute, Role, Subject, Value, colours

MONSTER = Subject(
    style="critters",
    nouns=("monster",),
    fixed={"patternProbability": 0, "cheeksProbability": 0, "animationVariant": "none"},
    attributes={
        "shape": Attribute(
            component="body",
            place="before",
            values={
                "round": Value(1, "dome", "round"),
                "square": Value(1, "block", "square"),
                "tall": Value(1, "tower", "tall"),
                "wide": Value(1, "squat", "wide"),
                "lumpy": Value(1, "blob", "lumpy"),
                "bell-shaped": Value(1, "bell", "bell-shaped"),
            },
        ),
        "colour": colours("body", "{}", "before", BRIGHT),
        "top": Attribute(
            component="top",
            values={
                "none": Value(15, None),
                "horns": Value(42, "horns", "horns"),
                "antennae": Value(13, "antennae", "antennae"),
                "ears": Value(12, "earsRound", "round ears"),
                "spike": Value(9, "fin", "a spike"),
                "sprout": Value(9, "sprout", "a sprout"),
            },
        ),
        "eyes": Attribute(
            component="eyes",
            values={
                "two": Value(22, "round", "two eyes"),
                "one": Value(22, "mono", "one eye"),
                "three": Value(14, "trio", "three eyes"),
                "four": Value(10, "four", "four eyes"),
                "angry": Value(14, "angry", "angry eyes"),
                "sleepy": Value(9, "sleepy", "sleepy eyes"),
                "closed": Value(9, "happy", "closed eyes"),
            },
        ),
        "mouth": Attribute(
            component="mouth",
            values={
                "smile": Value(1, "smile", "a smile"),
                "grin": Value(1, "grin", "a grin"),
                "teeth": Value(1, "teeth", "two teeth"),
                "zigzag": Value(1, "zigzag", "a zigzag mouth"),
                "frown": Value(1, "frown", "a frown"),
                "open": Value(1, "open", "an open mouth"),
            },
        ),
        "background": colours("background", "a {} background", "on", DEEP),
    },
    roles=(
        Role(
            word="devil",
            likely={"colour": {"red": 100}, "top": {"horns": 100}, "eyes": {"angry": 80, "two": 20}},
        ),
        Role(
            word="alien",
            likely={"colour": {"green": 90, "blue": 10}, "top": {"antennae": 90, "none": 10}},
        ),
    ),
)

PLANT = Subject(
    style="sprouts",
    nouns=("plant",),
    fixed={"patternProbability": 0, "cheeksProbability": 0, "animationVariant": "none", "plantColor": ["#3fc26a"]},
    attributes={
        "plant": Attribute(
            component="plant",
            place="noun",
            values={
                "cactus": Value(18, "cactus", "cactus"),
                "flower": Value(16, "flower", "{} flower"),
                "tulip": Value(16, "tulip", "{} tulip"),
                "palm": Value(12, "palm", "palm tree"),
                "bush": Value(12, "bush", "bush"),
                "aloe": Value(10, "succulent", "aloe"),
                "grass": Value(8, "grass", "tuft of grass"),
                "sprout": Value(8, "sprout", "seedling"),
            },
        ),
        "bloom": colours(
            "bloom",
            "{} bloom",
            "with",
            {"pink": "#f79ad3", "red": "#f26161", "yellow": "#fbd84a", "purple": "#b79bfb", "white": "#eef2f6"},
            joins="plant",
            plant=("flower", "tulip"),
        ),
        "pot": Attribute(
            component="pot",
            place="in",
            values={
                "plain": Value(50, "taper"),
                "round": Value(25, "round", "a round {} pot"),
                "vase": Value(25, "rim", "a {} vase"),
            },
        ),
        "pot colour": colours("pot", "a {} pot", "in", BRIGHT, joins="pot"),
        "eyes": Attribute(
            component="eyes",
            values={
                "open": Value(40, "round"),
                "closed": Value(20, "happy", "closed eyes"),
                "wink": Value(15, "wink", "a wink"),
                "sleepy": Value(12, "sleepy", "sleepy eyes"),
                "angry": Value(13, "angry", "angry eyes"),
            },
        ),
        "mouth": Attribute(
            component="mouth",
            values={
                "smile": Value(40, "smile", "a smile"),
                "grin": Value(25, "grin", "a grin"),
                "frown": Value(20, "frown", "a frown"),
                "open": Value(15, "open", "an open mouth"),
            },
        ),
        "background": colours("background", "a {} background", "on", DEEP),
    },
)

PLANET = Subject(
    style="planets",
    nouns=("planet",),
    fixed={"shadeVariant": "soft", "animationVariant": "none", "moonColor": ["#e0ded8"]},
    attributes={
        "colour": colours(
            "planet",
            "{}",
            "before",
            {
                "red": "#e05252",
                "orange": "#e08a35",
                "yellow": "#e3c04c",
                "green": "#6cb85a",
                "blue": "#3f9be8",
                "purple": "#9a82ec",
                "pink": "#e07cb8",
                "white": "#dfe5ea",
            },
        ),
        "surface": Attribute(
            component="surface",
            values={
                "plain": Value(20, None),
                "stripes": Value(25, "banded", "stripes"),
                "craters": Value(20, "cratered", "craters"),
                "continents": Value(20, "terra", "continents"),
                "swirl": Value(15, "swirl", "a swirl"),
            },
        ),
        "ring": Attribute(component="ring", values={"none": Value(45, None), "ring": Value(55, "bold", "a ring")}),
        "moons": Attribute(
            component="moons",
            values={
                "none": Value(50, None),
                "one": Value(30, "one", "a moon"),
                "two": Value(20, "two", "two moons"),
            },
        ),
        "stars": Attribute(component="star", values={"none": Value(50, None), "stars": Value(50, "large", "stars")}),
        "sky": colours(
            "background",
            "a {} sky",
            "on",
            {"blue": "#1c2f6e", "purple": "#40206a", "teal": "#0d4f52", "red": "#561a2a", "black": "#14151a"},
        ),
    },
    roles=(Role(word="gas giant", likely={"surface": {"stripes": 100}, "ring": {"ring": 90, "none": 10}}),),
)
