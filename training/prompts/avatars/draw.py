"""Draws scenes with DiceBear's avatar definitions (their licences: NOTICE), accessories of our own, and resvg.

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

from training.prompts.avatars.accessories import overlays
from training.prompts.avatars.scene import SIZE, SUBJECTS, Scene

_SEED = "snoopi"  # DiceBear wants one, though nothing is left to its choice
BACKGROUND = "background"  # the component that is a rectangle of ours
_SURFACE_ANGLE = -16  # degrees


def _scale_opacity(part: Any, factor: float) -> None:
    """Multiply every opacity within a part of a definition."""
    if isinstance(part, list):
        for child in part:
            _scale_opacity(child, factor)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in ("opacity", "fill-opacity", "stroke-opacity") and isinstance(value, str):
                part[key] = f"{min(1.0, factor * float(value)):g}"
            else:
                _scale_opacity(value, factor)


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
    for about in definition["components"].values():
        about.pop("rotate", None)
        about.pop("translate", None)
    if name == "personas":  # light on hair and faces, which makes colours alike
        _scale_opacity(definition["canvas"], 0.4)
        _scale_opacity(definition["components"]["hair"], 0.4)
    if name == "planets":
        surface = definition["components"]["surface"]
        _scale_opacity(surface, 3)  # else it can hardly be seen in a small picture
        surface["rotate"] = {"min": _SURFACE_ANGLE, "max": _SURFACE_ANGLE}
    return Style(definition)


def options(scene: Scene) -> dict[str, Any]:
    """DiceBear's options for a scene, without its background and what we draw ourselves."""
    about = SUBJECTS[scene.subject]
    chosen: dict[str, Any] = {"seed": _SEED, "size": SIZE, "idRandomization": False, **about.fixed}
    chosen["backgroundColor"] = ["#00000000"]
    for name, attribute in about.attributes.items():
        # What cannot be seen still needs a value.
        value = scene.values.get(name, next(iter(attribute.values)))
        style = attribute.values[value].style
        if attribute.component in ("", BACKGROUND):
            continue
        if attribute.colour:
            chosen[f"{attribute.component}Color"] = [style]
            continue
        chosen[f"{attribute.component}Probability"] = 0 if style is None else 100
        if style is not None:
            chosen[f"{attribute.component}Variant"] = style
    return chosen


def _background(scene: Scene) -> str | None:
    """The colour of what is behind everything."""
    table = SUBJECTS[scene.subject].attributes
    name = next(name for name, attribute in table.items() if attribute.component == BACKGROUND)
    return table[name].values[scene.values[name]].style


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

    scene = Scene(subject=subject, values=dict(values))
    behind, before = overlays(subject, scene.values)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}">'
        f'<rect width="{SIZE}" height="{SIZE}" fill="{_background(scene)}"/>'
        f"{behind}{Avatar(style, options(scene))}{before}</svg>"
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    pixels = numpy.array(Image.open(io.BytesIO(png)).convert("RGB"))
    pixels.flags.writeable = False
    return pixels


def render(scenes: list[Scene]) -> torch.Tensor:
    """Images of scenes, (B, 3, SIZE, SIZE) in [0, 1]."""
    stacked = torch.from_numpy(numpy.stack([draw(scene) for scene in scenes]))
    return stacked.permute(0, 3, 1, 2).float() / 255
