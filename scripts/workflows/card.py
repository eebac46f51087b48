"""A template's thumbnail: pictures that it made, or a plain ground; its model's name set large, steps and alpha.

The front end lays a badge over the top left corner, so nothing is drawn there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from PIL import Image, ImageColor, ImageDraw, ImageOps

from scripts.workflows.parts import NO_DOWNLOAD, Workflow
from snoopi_core.pictures.drawing import GREEN, INK, PAPER, RULE, load_font, wrap_text
from snoopi_core.presets import find_preset

SIDE, MARGIN, GAP = 512, 24, 10
BADGE = 60  # where the pictures may begin
TOP, BAND = 172, 352  # the words' upper edge: without pictures, and below them
PICTURE, LABEL, RIBBON = 216, 22, 48  # height of a row of pictures, of its labels, and of the ribbon
ARROW = 44
DARK = "#1b1f24"


def card(workflow: Workflow, pictures: Sequence[Image.Image]) -> Image.Image:
    """(512, 512) RGB; `pictures` are the first ones of each result, in the order of the nodes that show them."""
    page = Image.new("RGB", (SIDE, SIDE), PAPER if pictures else _ground(workflow.model))
    if pictures:
        titles = _titles(workflow)
        _draw_pictures(page, pictures, ["before", "after"] if len(pictures) == 2 > len(titles) > 0 else titles)
    _draw_words(page, workflow, BAND if pictures else TOP, dark=bool(pictures))
    if NO_DOWNLOAD in workflow.about:
        _draw_ribbon(page)
    return page


def _titles(workflow: Workflow) -> list[str]:
    return [node.title for node in workflow.nodes.values() if node.type == "SaveImage"]


def _alpha(workflow: Workflow) -> str:
    """The strength, as something to try unless it is measured (as for the pack's own models) or the paper's."""
    nodes = workflow.nodes.values()
    used = {node.inputs["alpha"]: node.inputs["alpha_mode"] for node in nodes if "alpha" in node.inputs}
    presets = [find_preset(node.inputs["preset"]) for node in nodes if "preset" in node.inputs]
    known = [*(preset.nasa_alpha for preset in presets if preset), *([] if workflow.needs_files else used)]
    return ", ".join(
        "alpha auto" if mode == "auto" else f"{'' if alpha in known else 'try '}alpha {alpha:g}"
        for alpha, mode in used.items()
    )


def _pair(workflow: Workflow) -> str:
    """The prompt and its negatives."""
    words = {key: node.inputs["text"] for key, node in workflow.nodes.items() if node.type == "CLIPTextEncode"}
    return f"{words['prompt']} minus " + " / ".join(text for key, text in words.items() if key.startswith("negative"))


def _ground(name: str) -> str:
    """A dark colour for each model: of the same name with other steps, the same."""
    hue = hashlib.sha256(name.encode()).digest()[0] * 360 // 256
    return "#{:02x}{:02x}{:02x}".format(*ImageColor.getrgb(f"hsl({hue}, 45%, 26%)"))


def _draw_pictures(page: Image.Image, pictures: Sequence[Image.Image], titles: Sequence[str]) -> None:
    """One wide picture, or a row of small ones with their titles, an arrow between two."""
    draw, count = ImageDraw.Draw(page), len(pictures)
    if not titles:  # a sheet or a chart
        shown = ImageOps.contain(pictures[0], (SIDE - 2 * GAP, BAND - BADGE), Image.Resampling.LANCZOS)
        page.paste(shown, ((SIDE - shown.width) // 2, BADGE))
        return
    between = ARROW if count == 2 else GAP
    side = min(PICTURE, (SIDE - 2 * GAP - between * (count - 1)) // count)
    x, y = (SIDE - count * side - between * (count - 1)) // 2, BADGE + (BAND - BADGE - LABEL - side) // 2
    for number, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline=RULE)
        page.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        size = 16
        while (font := load_font(size)).getlength(title) > side + between - 6 and size > 9:
            size -= 1
        draw.text((x + side // 2, y + side + LABEL // 2 + 4), title, fill=INK, font=font, anchor="mm")
        if count == 2 and number == 0:
            middle, right = y + side // 2, x + side + ARROW - 10
            draw.line((x + side + 10, middle, right - 6, middle), fill=INK, width=5)
            draw.polygon([(right, middle), (right - 14, middle - 10), (right - 14, middle + 10)], fill=INK)
        x += side + between


def _draw_words(page: Image.Image, workflow: Workflow, top: int, *, dark: bool) -> None:
    """The model's name, then what the template does in small."""
    draw = ImageDraw.Draw(page)
    if dark:
        draw.rectangle((0, top, SIDE, SIDE), fill=DARK)
    name, size = _fitted(workflow.model, *((44, 1) if dark else (72, 2)))
    y = top + 12
    for line in name:
        draw.text((MARGIN, y), line, fill=PAPER, font=load_font(size), stroke_width=1)
        y += round(1.25 * size)
    about = workflow.about.removesuffix(NO_DOWNLOAD).removesuffix(", ")
    words = [part for part in (about, _alpha(workflow), _pair(workflow) if dark else "") if part]
    lines, size = _fitted(" \u00b7 ".join(words), 25, 2)
    for line in lines:
        draw.text((MARGIN, y + 8), line, fill=RULE, font=load_font(size))
        y += 34


def _fitted(text: str, size: int, most: int) -> tuple[list[str], int]:
    """The text in at most `most` lines that fit, and the size of its letters: `size`, or less if need be."""
    room = SIDE - 2 * MARGIN
    while size > 10:
        font = load_font(size)
        lines = wrap_text(text, font, room)
        if len(lines) <= most and max(map(font.getlength, lines)) <= room:
            break
        size -= 1
    return lines, size


def _draw_ribbon(page: Image.Image) -> None:
    draw, font = ImageDraw.Draw(page), load_font(26)
    left, top = SIDE - round(font.getlength(NO_DOWNLOAD)) - MARGIN, BAND + 12
    draw.rectangle((left, top, SIDE, top + RIBBON), fill=GREEN)
    middle = top + RIBBON // 2
    draw.polygon([(left, top), (left - 16, middle), (left, top + RIBBON)], fill=GREEN)
    draw.text((left + MARGIN // 3, middle), NO_DOWNLOAD, fill=PAPER, font=font, anchor="lm")
