"""The shipped teacher follows full captions; all other measurements depend on that."""

import pytest
from effort import effort
from host_world import TEACHER

from experiments.sampling import ManySteps
from experiments.shapes import measure
from training.models.loading import load_backbone

pytestmark = [pytest.mark.slow, pytest.mark.scaled]

CAPTIONS = effort(gate=24, full=120)


def test_every_attribute_of_the_teacher(pack_root):
    teacher = load_backbone(str(pack_root / "models" / TEACHER))
    captions, stated = measure.caption_set(CAPTIONS, 320_000, "full")
    row = measure.accuracy(ManySteps(model=teacher, steps=20, cfg=3.0)(captions, list(range(CAPTIONS))), stated)
    print(f"\nteacher, 20 steps, cfg 3, {CAPTIONS} full captions: {row.per_attribute}, valid {row.valid:.3f}")
    assert min(row.per_attribute.values()) >= 0.97
