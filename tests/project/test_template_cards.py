"""What a template's card says of alpha: a number that nobody has measured is one to try."""

from __future__ import annotations

import pytest

from scripts.workflows.card import _alpha
from scripts.workflows.descriptions import WORKFLOWS


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        ("1 ", "alpha 0.75"),
        ("PixArt-DMD", "alpha 0.45"),
        ("SD-Turbo", "try alpha 0.3"),
        ("Z-Image-Turbo", "try alpha 0.5"),
        ("My student", "alpha auto"),
    ],
)
def test_an_alpha_that_is_not_known_is_one_to_try(begins: str, said: str) -> None:
    (workflow,) = (workflow for workflow in WORKFLOWS if workflow.name.startswith(begins))
    assert _alpha(workflow) == said


def test_the_notes_agree() -> None:
    """They say where a number comes from, or that there is none yet."""
    for workflow in WORKFLOWS:
        if _alpha(workflow).startswith("try "):
            turn = workflow.note[2]
            assert any(word in turn for word in ("None is", "Nobody", "nobody", "sweeps")), workflow.name
