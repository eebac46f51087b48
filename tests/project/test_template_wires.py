"""Where scripts/workflows/layout.py leads the templates' wires."""

from __future__ import annotations

from scripts.workflows.layout import APART, Box, Wire, dots


def test_a_wire_around_a_column_keeps_away_from_one_within_it() -> None:
    """They would go in opposite directions on one line, and hide each other."""
    drawn = {
        "prompt": Box(0, 100, 100, 200),
        "negative": Box(200, 0, 300, 100),
        "nasa": Box(200, 128, 300, 400),
        "sampler": Box(400, 100, 500, 200),
    }
    within = Wire(id=2, source="negative", target="nasa", start=(300, 50), end=(200, 150))
    past = Wire(id=1, source="prompt", target="sampler", start=(100, 125), end=(400, 125))
    found = dots([past, within], [(0, 100), (200, 300), (400, 500)], drawn)
    assert {y for _, y in found[within.id]} == {114}
    assert found[past.id] and all(abs(y - 114) >= APART for _, y in found[past.id])
