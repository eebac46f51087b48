"""All workflows, in the order in which the front end lists them, and how seeds are found for some."""

from __future__ import annotations

from scripts.workflows.bundled import COMPARE, FIRST, INSPECT, NEGATIVE, SEEDS, SWEEP
from scripts.workflows.compared import (
    COMPARED_NEGATIVE,
    FIGURE,
    GUIDED_NEGATIVE,
    GUIDED_SEEDS,
    MASKED_NEGATIVES,
    MASKS,
    STEPS,
)
from scripts.workflows.current import PICTURES
from scripts.workflows.parts import Search
from scripts.workflows.published import PUBLISHED
from scripts.workflows.video import VIDEOS

SEARCHES = (
    Search(by=COMPARE, for_all=(FIRST, COMPARE, SWEEP, INSPECT), negatives=(NEGATIVE,), seeds=SEEDS),
    Search(by=MASKS, for_all=(MASKS,), negatives=MASKED_NEGATIVES, seeds=SEEDS),
    Search(by=STEPS, for_all=(STEPS,), negatives=(GUIDED_NEGATIVE,), seeds=GUIDED_SEEDS),
    Search(by=FIGURE, for_all=(FIGURE,), negatives=(COMPARED_NEGATIVE,), seeds=SEEDS),
)
WORKFLOWS = (FIRST, COMPARE, SWEEP, INSPECT, MASKS, STEPS, FIGURE, *PUBLISHED, *PICTURES, *VIDEOS)
