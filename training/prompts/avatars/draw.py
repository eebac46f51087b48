"""Draws scenes with DiceBear's avatar definitions (their licences: NOTICE) and the rasteriser resvg.

Images are RGB, H = W = `SIZE` pixels. A scene always gives the same pixels.
"""

from __future__ import annotations

import functools
import io
import json
from importlib.resources import files
from typing import Any

import numpy
import torch
from PIL import Image

from training.prompts.avatars.scene import SIZE, SUBJECTS, Scene

_SEED = "snoopi"  # of DiceBear's own choices: where the stars are
_BEARD = "#7a4630"  # brown, where no hair shows a colour
# What grows on a monster has the colour of its kind.
_ACCENTS = {"horns": "#f3e9d2", "antennae": "#fbd84a", "ears": "#f79ad3", "spike": "#f9a04b", "sprout": "#62d99a"}
# Fixed angles in degrees, in place of random ones: {style: {component: angle}}.
_ANGLES = {"planets": {"ring": -16, "surface": -16}}


def _strengthen(part: Any) -> None:
    """Double every opacity, so that what is on a planet can be seen in a small picture."""
    if isinstance(part, list):
        for child in part:
            _strengthen(child)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in ("opacity", "fill-opacity", "stroke-opacity") and isinstance(value, str):
                part[key] = f"{min(1.0, 2 * float(value)):g}"
            else:
                _strengthen(value)


@functools.cache
def _style(name: str) -> Any:
    """DiceBear's definition of a style, checked by DiceBear.

    Raises:
        ValueError: the packages that draw are not installed.
    """
    try:
        from dicebear import Style

        definition = json.loads((files("dicebear_styles") / f"{name}.json").read_text(encoding="utf-8"))
    except ModuleNotFoundError as error:
        raise ValueError(
            f"pictures of avatars need the package {error.name}: install the extra `avatars` of this project"
        ) from error
    for component, about in definition["components"].items():
        about.pop("rotate", None)
        if component != "star":  # scattered, always in the same way
            about.pop("translate", None)
    if name == "planets":
        _strengthen(definition["components"]["surface"])
    for component, angle in _ANGLES.get(name, {}).items():
        definition["components"][component]["rotate"] = {"min": angle, "max": angle}
    return Style(definition)


def options(scene: Scene) -> dict[str, Any]:
    """DiceBear's options for a scene."""
    about = SUBJECTS[scene.subject]
    chosen: dict[str, Any] = {"seed": _SEED, "size": SIZE, "idRandomization": False, **about.fixed}
    for name, attribute in about.attributes.items():
        # What cannot be seen still needs a value.
        value = scene.values.get(name, next(iter(attribute.values)))
        style = attribute.values[value].style
        if attribute.colour:
            chosen[f"{attribute.component}Color"] = [style]
            continue
        chosen[f"{attribute.component}Probability"] = 0 if style is None else 100
        if style is not None:
            chosen[f"{attribute.component}Variant"] = style
    if scene.subject == "person":
        chosen["facialHairColor"] = chosen["hairColor"] if "hair colour" in scene.values else [_BEARD]
    if scene.subject == "monster":
        chosen["accentColor"] = [_ACCENTS.get(scene.values["top"], _ACCENTS["horns"])]
    return chosen


def draw(scene: Scene) -> numpy.ndarray:
    """The picture of a scene, uint8 (SIZE, SIZE, 3), read-only.

    Raises:
        ValueError: the packages that draw are not installed.
    """
    return _drawn(scene.subject, tuple(sorted(scene.values.items())))


@functools.lru_cache(maxsize=8192)  # 100 MB; judges read the same scenes again and again
def _drawn(subject: str, values: tuple[tuple[str, str], ...]) -> numpy.ndarray:
    style = _style(SUBJECTS[subject].style)
    import resvg_py
    from dicebear import Avatar

    svg = str(Avatar(style, options(Scene(subject=subject, values=dict(values)))))
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    pixels = numpy.array(Image.open(io.BytesIO(png)).convert("RGB"))
    pixels.flags.writeable = False
    return pixels


def render(scenes: list[Scene]) -> torch.Tensor:
    """Images of scenes, (B, 3, SIZE, SIZE) in [0, 1]."""
    stacked = torch.from_numpy(numpy.stack([draw(scene) for scene in scenes]))
    return stacked.permute(0, 3, 1, 2).float() / 255
