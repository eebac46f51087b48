"""Where a workflow's nodes, groups and wires lie. All numbers are pixels of the canvas, y downwards.

Nodes lie in columns. A wire that would pass behind a node is led around it by reroutes, the front end's small dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from scripts.workflows.parts import NOTE, Column, Node

GAP = 32  # between columns
COLLAPSED = 225  # a collapsed node's width in Nodes 2.0, where it is wider
TITLE = 30  # height of a title bar
BELOW = 20  # between a node, as high as room.py says, and the next one's title bar
GROUPS = ("1 Model", "2 Prompts", "3 Negative", "4 Result")
GROUP_TITLE, PADDING = 34, 14
# By the beginning of a node's key.
COLOURS = {"prompt": "green", "negative": "red", "nasa": "purple", "branch_nasa": "purple"}
CLEAR, APART = 14, 12  # a wire's distance from a node, and from another wire in the same gap
# A wire that goes farther up or down between two columns is led straight; the size of its bends.
FAR, BEND = 130, 16
_MODEL = ("Loader", "ModelSampling", "Empty", "PrimitiveInt", "LTXVConcat")
_PROMPTS = ("CLIPTextEncode", "Conditioning", "PrimitiveFloat")

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A node with its title bar, or a group."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A link between two nodes, from the point where it leaves one to the point where it enters the other."""

    id: int
    source: str
    target: str
    start: Point
    end: Point


def group_of(key: str, node: Node) -> int:
    """The index in `GROUPS`."""
    if node.group is not None:
        return node.group
    if key.startswith(("negative", "nasa", "mask")):
        return 2
    if any(word in node.type for word in _PROMPTS):
        return 1
    return 0 if any(word in node.type for word in _MODEL) else 3


def colour_of(key: str) -> str:
    """A name in the front end's palette, or ""."""
    return next((colour for begin, colour in COLOURS.items() if key.startswith(begin)), "")


def place(
    columns: Sequence[Column], nodes: Mapping[str, Node], sizes: dict[str, Point], heights: Mapping[str, float]
) -> tuple[dict[str, Point], list[Point]]:
    """(each node's position below its title bar, left and right edge of each column).

    `sizes` has the note's, too; `heights` are those for which there is room. Nodes are made as wide as their column, so
    that no wire to the next one passes behind its neighbours; the note as wide as its columns.
    """

    def is_small(key: str) -> bool:
        return key in nodes and nodes[key].collapsed

    def group(key: str) -> int:
        return group_of(key, nodes[key]) if key in nodes else -1

    places: dict[str, Point] = {}
    edges, x, spanned = [], 0.0, []
    for column in columns:
        y, before = 0.0, None
        keys = [key for key in column if isinstance(key, str)]
        width = max(COLLAPSED if is_small(key) else sizes[key][0] for key in keys if key != NOTE)
        for key in column:
            if isinstance(key, int):
                y, before = key, None
                continue
            if before is not None and group(key) != before and key != NOTE:
                y += GROUP_TITLE + PADDING
            # The note begins where its first column has it, below what its other columns have above it.
            places[key] = (places[key][0], max(y, places[key][1])) if key in places else (x, y)
            y, before = y + heights.get(key, sizes[key][1]) + BELOW + TITLE, group(key)
        edges.append((x, x + width))
        spanned += [edges[-1]] if NOTE in keys else []
        sizes.update({key: (width, sizes[key][1]) for key in keys if key != NOTE and not is_small(key)})
        x += width + GAP
    if spanned:
        sizes[NOTE] = (spanned[-1][1] - spanned[0][0], sizes[NOTE][1])
    return places, edges


def boxes(nodes: Mapping[str, Node], places: Mapping[str, Point], sizes: Mapping[str, Point]) -> dict[str, Box]:
    """The node's boxes; a collapsed one is a title bar."""
    found = {}
    for key, (x, y) in places.items():
        small = key in nodes and nodes[key].collapsed
        width, height = (COLLAPSED, 0) if small else sizes[key]
        found[key] = Box(x, y - TITLE, x + width, y + height)
    return found


def groups(nodes: Mapping[str, Node], drawn: Mapping[str, Box]) -> dict[str, Box]:
    """Each group's box around its nodes.

    Raises:
        ValueError: two groups overlap.
    """
    found: dict[str, Box] = {}
    for number, title in enumerate(GROUPS):
        inside = [box for key, box in drawn.items() if key in nodes and group_of(key, nodes[key]) == number]
        if inside:
            found[title] = Box(
                min(box.left for box in inside) - PADDING,
                min(box.top for box in inside) - PADDING - GROUP_TITLE,
                max(box.right for box in inside) + PADDING,
                max(box.bottom for box in inside) + PADDING,
            )
    for title, box in found.items():
        for other, another in found.items():
            if title < other and box.overlaps(another):
                raise ValueError(f"groups {title!r} and {other!r} overlap: {box}, {another}")
    return found


def wires(found: Sequence[Mapping[str, Any]]) -> list[Wire]:
    """The links that the page returned, as `Wire`s."""
    return [Wire(**{**wire, "start": tuple(wire["start"]), "end": tuple(wire["end"])}) for wire in found]


def titles(around: Mapping[str, Box]) -> dict[str, Box]:
    """The groups' titles, behind which no wire should pass, either."""
    return {title: Box(box.left, box.top, box.right, box.top + GROUP_TITLE) for title, box in around.items()}


def dots(wires: Sequence[Wire], edges: Sequence[Point], drawn: Mapping[str, Box]) -> dict[int, list[Point]]:
    """For each wire that would pass behind a node, the reroutes that lead it around, from its source to its target.

    `drawn` may have other boxes, too, to lead wires around.
    """
    used: dict[int, dict[Point, float]] = {}
    found = {}

    def columns(wire: Wire) -> tuple[int, int]:
        first, last = (_column(drawn[key], edges) for key in (wire.source, wire.target))
        return first, last

    # Those within a column first: only the gap above their target can have them.
    for wire in sorted(wires, key=lambda wire: (len({*columns(wire)}), wire.start[1], wire.id)):
        first, last = columns(wire)
        if first == last:
            y = drawn[wire.target].top - CLEAR
            used.setdefault(first, {})[wire.start] = y
            found[wire.id] = [(edges[first][1] + CLEAR, y), (drawn[wire.target].left - CLEAR, y)]
        elif last > first + 1 and not _is_clear(wire, drawn):
            found[wire.id] = list(
                chain.from_iterable(_around(wire, column, edges, drawn, used) for column in range(first + 1, last))
            )
        elif last == first + 1 and wire.start[0] < edges[first][1] - CLEAR and not _is_clear(wire, drawn):
            # From a collapsed node, first out of its column.
            found[wire.id] = [(edges[first][1] + CLEAR, wire.start[1])]
    return {wire.id: _bent(wire, _without_repeats(found[wire.id]), edges) for wire in wires if wire.id in found}


def _bent(wire: Wire, points: Sequence[Point], edges: Sequence[Point]) -> list[Point]:
    """With more dots where the wire goes far up or down: its curve would pass behind the nodes beside it."""
    # Wires of a collapsed node begin within its column.
    right = next(right for left, right in edges if left - 1 <= wire.start[0] <= right + 1)
    ways = [(right + CLEAR, wire.start[1]), *points, (wire.end[0] - CLEAR, wire.end[1])]
    bent: list[Point] = []
    for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(ways)):
        far = abs(y1 - y0) > FAR and abs(x1 - x0) < GAP
        begins, ends = number == 0, number == len(ways) - 2
        if far or not begins or wire.start[0] < right - CLEAR:
            bent.append((x0, y0))
        if far:
            step = BEND if y1 > y0 else -BEND
            bent += [(x0, y0 + step), (x1, y1 - step), (x1, y1), *([] if ends else [(x1 + BEND, y1)])]
    return list(dict.fromkeys(bent))


def _column(box: Box, edges: Sequence[Point]) -> int:
    return next(number for number, (left, right) in enumerate(edges) if left - 1 <= box.left < right)


def _is_clear(wire: Wire, drawn: Mapping[str, Box]) -> bool:
    """Whether the front end's own curve, a Bezier curve, passes no node."""
    (x0, y0), (x3, y3) = wire.start, wire.end
    reach = ((x3 - x0) ** 2 + (y3 - y0) ** 2) ** 0.5 / 4
    for step in range(101):
        t = step / 100
        weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
        x = sum(w * at for w, at in zip(weights, (x0, x0 + reach, x3 - reach, x3), strict=True))
        y = sum(w * at for w, at in zip(weights, (y0, y0, y3, y3), strict=True))
        for key, box in drawn.items():
            near = box.left - CLEAR / 2 < x < box.right + CLEAR / 2 and box.top - CLEAR / 2 < y < box.bottom + CLEAR
            if near and key not in (wire.source, wire.target):
                return False
    return True


def _around(
    wire: Wire, column: int, edges: Sequence[Point], drawn: Mapping[str, Box], used: dict[int, dict[Point, float]]
) -> list[Point]:
    """Two dots, left and right of a column, at the free height nearest to the straight line.

    Wires from the same output run together.
    """
    left, right = edges[column]
    others = used.setdefault(column, {})
    if wire.start in others:
        return [(left - CLEAR, others[wire.start]), (right + CLEAR, others[wire.start])]
    share = ((left + right) / 2 - wire.start[0]) / (wire.end[0] - wire.start[0])
    wanted = wire.start[1] + share * (wire.end[1] - wire.start[1])
    taken = [(box.top - CLEAR, box.bottom + CLEAR) for box in drawn.values() if box.left < right and left < box.right]
    taken += [(y - APART + 1, y + APART - 1) for y in others.values()]

    def is_free(y: float) -> bool:
        return all(not top < y < bottom for top, bottom in taken)

    heights = [wanted, *(y for ends in taken for y in ends)]
    y = min(filter(is_free, heights), key=lambda y: abs(y - wanted))
    others[wire.start] = y
    return [(left - CLEAR, y), (right + CLEAR, y)]


def _without_repeats(points: Sequence[Point]) -> list[Point]:
    """Without dots between two others of the same height."""
    kept = []
    for number, (x, y) in enumerate(points):
        inner = 0 < number < len(points) - 1
        if not (inner and points[number - 1][1] == y == points[number + 1][1]):
            kept.append((x, y))
    return kept
