"""A Markdown page as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; max-width: 1120px; color: #222 }}
img {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }}
table {{ display: block; overflow-x: auto }}
th, td {{ padding: .25em .6em; border-bottom: 1px solid #ddd; text-align: left }}
th {{ background: #f4f4f4; vertical-align: bottom }}
</style>
{body}
</html>
"""


def html(pages: dict[str, str], folder: Path, title: str) -> str:
    """Markdown pages by their file's name, one after the other; links between them stay within the page, and their
    pictures, PNG files below `folder`, are put inside.

    Raises:
        FileNotFoundError: a picture is missing.
    """
    markdown = MarkdownIt("commonmark").enable("table")
    body = "\n".join(f'<section id="{name}">\n{markdown.render(text)}</section>' for name, text in pages.items())

    def inside(match: re.Match[str]) -> str:
        picture = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{picture}"'

    body = re.sub(r'href="([^"#]+)"', lambda match: f'href="#{match[1]}"' if match[1] in pages else match[0], body)
    return _PAGE.format(title=escape(title), body=re.sub(r'src="(images/[^"]+)"', inside, body))
