"""Parse and describe a choice of network blocks: `all`, `middle`, `input.1, output.4-8`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..text_input import parse_digits, shorten

_WORD = re.compile(r"(?P<group>[a-z_]+)(\.(?P<first>[0-9]+)(-(?P<last>[0-9]+))?)?")


class Block(NamedTuple):
    """A block with cross-attention: its group (such as `input`) and its index in the host's own numbering."""

    group: str
    index: int


def parse_blocks(text: str, available: Sequence[Block]) -> frozenset[Block]:
    """The blocks that `text` names.

    Args:
        text: `all`, or names separated by commas or spaces: a group (`output`), a block (`input.1`) or a range
            (`output.4-8`, both ends included; indices without cross-attention in between are skipped).
        available: the model's blocks with cross-attention.

    Raises:
        ValueError: empty, not in this syntax, or a block that the model does not have; lists the available blocks.
    """
    example = f"{available[0].group}.{available[0].index}, {available[-1].group}"
    help_text = f'expected "all", or some of: {describe_blocks(available)}, for example "{example}"'
    shown = shorten(text)
    words = text.lower().replace(",", " ").split()
    if not words:
        raise ValueError(f"blocks is empty; {help_text}")
    chosen: set[Block] = set()
    for word in words:
        if word == "all":
            chosen.update(available)
            continue
        match = _WORD.fullmatch(word)
        if match is None:
            raise ValueError(
                f"blocks {shown!r}: {shorten(word)!r} is not a block, a range of blocks or a group; {help_text}"
            )
        found = {block for block in available if block.group == match["group"]}
        if match["first"] is not None:
            first = parse_digits(match["first"])
            last = parse_digits(match["last"] or match["first"])
            found = {block for block in found if first <= block.index <= last}
        if not found:
            raise ValueError(f"blocks {shown!r}: this model has no cross-attention in {shorten(word)!r}; {help_text}")
        chosen |= found
    return frozenset(chosen)


def describe_blocks(available: Iterable[Block]) -> str:
    """The blocks in the syntax of `parse_blocks`, with ranges: "input.1-2, input.4, middle.0"."""
    runs: list[list[Block]] = []
    for block in available:
        if runs and runs[-1][-1] == Block(block.group, block.index - 1):
            runs[-1].append(block)
        else:
            runs.append([block])
    return ", ".join(f"{run[0].group}.{run[0].index}" + (f"-{run[-1].index}" if len(run) > 1 else "") for run in runs)
