"""The shipped teacher follows full captions; all other measurements depend on that."""

import pytest
from effort import effort

from experiments.avatars.measure import accuracy, caption_set
from experiments.sampling import ManySteps
from experiments.worlds import WORLDS
from training.models.loading import load_backbone
from training.prompts.avatars.rules import read

pytestmark = [pytest.mark.slow, pytest.mark.scaled]

CAPTIONS = effort(gate=24, full=120)


def test_the_teacher_draws_what_is_stated(pack_root):
    teacher = load_backbone(str(pack_root / WORLDS["avatars"].teacher))
    captions, stated = caption_set(CAPTIONS, 320_000, "full")
    images = ManySteps(model=teacher, steps=20, cfg=3.0)(captions, list(range(CAPTIONS)))
    row = accuracy(read(images), stated)
    print(f"\nteacher, 20 steps, cfg 3, {CAPTIONS} full captions: {row.per_attribute}, valid {row.valid:.3f}")
    # Measured: 0.937 and 0.942 on 120 captions, 0.896 and 0.917 on 24, where some attributes are asked for once.
    assert row.stated >= 0.85
    assert row.valid >= 0.80
