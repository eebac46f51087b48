"""Help pages in other languages: each says what the English page says, part by part.

The front end looks for web/docs/<node>/<language>.md, then for web/docs/<node>.md. Pictures are beside the latter.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"
NODES = sorted(path.stem for path in DOCS.glob("*.md"))
LANGUAGES = ["fr", "ja", "zh"]
# Codes, links and figures are the same in every language. Decimal points, too: values are typed with them.
FIXED = re.compile(r"`[^`]+`|\]\([^)]+\)|https?://[^\s)]+|\d+(?:\.\d+)?")
# Numbers that are said in another way.
IN_WORDS = {"16 million": "16", "1600 万": "16", "1600万": "16"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_a_translated_page_has_all_parts_of_the_english_page(node: str, language: str) -> None:
    english, translated = _parts(DOCS / f"{node}.md"), _parts(DOCS / node / f"{language}.md")
    assert translated[0][0] == english[0][0], "the title is the node's name"
    assert len(translated) == len(english), (
        f"headings: {[p[0] for p in translated]}, English: {[p[0] for p in english]}"
    )
    for (heading, blocks), (_, wanted) in zip(translated, english, strict=True):
        place = f"{node}/{language}.md, {heading}"
        assert [_kind(b) for b in blocks] == [_kind(b) for b in wanted], (
            f"{place}: paragraphs, list items, rows or code"
        )
        for block, original in zip(blocks, wanted, strict=True):
            missing, extra = _fixed(original) - _fixed(block), _fixed(block) - _fixed(original)
            extra = {each: count for each, count in extra.items() if not re.fullmatch(r"\d", each)}  # "one" as "1"
            assert not missing and not extra, f"{place}: missing {dict(missing)}, added {extra}, in: {block[:80]}"
            assert len(block) <= 2 * len(original) + 20, f"{place}: much longer than in English: {block[:80]}"


def test_every_translated_page_belongs_to_a_node_and_a_language() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.glob("*/*.md")}
    assert pages == {f"{node}/{language}.md" for node in NODES for language in LANGUAGES}


def _parts(page: Path) -> list[tuple[str, list[str]]]:
    """Headings, each with its paragraphs, list items, table rows and lines of code; lines of a paragraph joined."""
    parts: list[tuple[str, list[str]]] = []
    goes_on = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            parts.append((line.lstrip("# "), []))
            goes_on = False
        elif not line.strip():
            goes_on = False
        elif line.startswith(("- ", "|", "    ")) or re.match(r"\d+\. ", line) or not goes_on:
            parts[-1][1].append(line)
            goes_on = not line.startswith(("|", "    "))
        else:
            parts[-1][1][-1] += " " + line.strip()
    return parts


def _kind(block: str) -> str:
    return "code" if block.startswith("    ") else "row" if block[0] == "|" else "item" if block[:2] == "- " else "text"


def _fixed(block: str) -> Counter[str]:
    for words, number in IN_WORDS.items():
        block = block.replace(words, number)
    return Counter(FIXED.findall(block))
