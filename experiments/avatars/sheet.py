"""Pages of pictures, and what was read in each: a person can check the rules with these."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import torch
from PIL import Image

from experiments.removal import Seen, Stated
from snoopi_core.formats.atomic import write_atomically

_STYLE = """
body { font: 13px sans-serif; margin: 2em; background: #fff; color: #1b1f24; }
main { display: grid; grid-template-columns: repeat(auto-fill, 176px); gap: 16px; margin-bottom: 16px; }
figure { margin: 0; } img { width: 128px; image-rendering: pixelated; border: 3px solid #d0d7de; }
.invalid img { border-color: #d1242f; } .wrong { color: #d1242f; font-weight: bold; } i { display: block; }
"""


def images_of(pictures: torch.Tensor) -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [0, 1]."""
    pixels = (pictures.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in pixels]


def sheet(pictures: torch.Tensor, columns: int = 20) -> Image.Image:
    """All pictures (B, 3, H, W) in [0, 1], without words."""
    height, width = pictures.shape[2:]
    page = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for n, image in enumerate(images_of(pictures)):
        page.paste(image, ((n % columns) * width, (n // columns) * height))
    return page


def figures(pictures: torch.Tensor, captions: list[str], seen: Seen, stated: list[Stated]) -> str:
    """HTML: each picture with its caption and what was read. Red: what the caption states otherwise, and the frame of
    a picture that is not valid."""
    found = []
    for n, (image, row) in enumerate(zip(images_of(pictures), seen.rows, strict=True)):
        file = io.BytesIO()
        image.save(file, "PNG")
        words = [
            f'<span class="wrong">{name}: {html.escape(row.get(name, "not there"))}</span>'
            if row.get(name) not in stated[n].get(name, (row.get(name),))
            else f"{name}: {html.escape(row[name])}"
            for name in dict.fromkeys([*row, *stated[n]])
        ]
        found.append(
            f'<figure class="{"valid" if seen.valid[n] else "invalid"}">'
            f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
            f"<figcaption><i>{html.escape(captions[n]) or 'no caption'}</i>{', '.join(words)}</figcaption></figure>"
        )
    return f"<main>{''.join(found)}</main>"


def page(title: str, about: str, body: str) -> str:
    """HTML: `figures` with a title and what the colours mean."""
    about += (
        " Below each picture: its caption, then what was read in it. Red words: the caption states something else. Red "
        "frame: the picture does not look like the drawing of what was read."
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>{body}</html>\n"
    )


def labelled_page(title: str, pictures: torch.Tensor, captions: list[str], seen: Seen, stated: list[Stated]) -> str:
    """One page of `figures`."""
    about = f"{len(pictures)} pictures, {sum(seen.valid)} valid."
    return page(title, about, figures(pictures, captions, seen, stated))


def write_sheet(
    path: Path, title: str, pictures: torch.Tensor, captions: list[str], seen: Seen, stated: list[Stated]
) -> None:
    """`labelled_page` if the file's name ends in .html, else `sheet`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".html":
        write_atomically(path, labelled_page(title, pictures, captions, seen, stated))
    else:
        sheet(pictures).save(path)
