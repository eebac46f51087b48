"""What the shapes world's student does, through the nodes, at one step: rates of removal and the image's quality.

The bars are below the measured values, so that a change that breaks the effect is detected.
"""

import pytest
from effort import effort
from host_world import STUDENT, HostStudent

from experiments.removal import mean_removal, removal_table
from experiments.sampling import one_step
from experiments.shapes import measure
from experiments.shapes.world import SHAPES
from training.models.loading import load_backbone

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.scaled]
IMAGES = effort(gate=16, full=40)
CAPTIONS = effort(gate=100, full=200)
SCALES = effort(gate=(1.5,), full=(1.5, 3.0))
SEED = 300_000  # seeds that were not used in training or to choose alpha and the pairs


@pytest.fixture(scope="module")
def host(alpha):
    return HostStudent(alpha=alpha)


@pytest.fixture(scope="module")
def before(host, pairs):
    return removal_table(SHAPES, host, pairs, steer=False, count=IMAGES, seed=SEED)


@pytest.fixture(scope="module")
def after(host, pairs):
    return removal_table(SHAPES, host, pairs, count=IMAGES, seed=SEED)


def test_pairs_cover_every_attribute_and_ask_for_something(pairs, before):
    assert len(pairs) >= 16
    assert {pair.attribute for pair in pairs} == {"colour", "shape", "position", "background"}
    assert mean_removal(before).absent <= 0.50, "the negatives name what the student does not draw anyway"


def test_removal(pairs, before, after, alpha):
    print(f"\nalpha {alpha:g}, {IMAGES} images a pair: absent before -> after, clean, kept")
    for pair, was, now in zip(pairs, before, after, strict=True):
        print(
            f"  {pair.prompt!r} without {pair.negative!r}: "
            f"{was.absent:.2f} -> {now.absent:.2f}, {now.clean:.2f}, {now.kept:.2f}"
        )
    mean = mean_removal(after)
    print(f"  mean: {mean_removal(before).absent:.3f} -> {mean.absent:.3f}, {mean.clean:.3f}, {mean.kept:.3f}")
    assert mean.absent >= 0.75
    assert mean.clean >= 0.50
    assert mean.kept >= 0.88


def test_removal_beats_guidance_at_one_step(pack_root, pairs, after):
    student = load_backbone(str(pack_root / "models" / STUDENT))
    clean = {
        cfg: mean_removal(
            removal_table(SHAPES, one_step(student, method="cfg", scale=cfg), pairs, count=IMAGES, seed=SEED)
        ).clean
        for cfg in SCALES
    }
    print(f"\nclean by CFG scale on one step: {clean}")
    assert mean_removal(after).clean >= max(clean.values()) + 0.15


def test_one_step_follows_partial_captions(host):
    captions, stated = measure.caption_set(CAPTIONS, 310_000, "partial")
    row = measure.accuracy(host(captions, list(range(CAPTIONS))), stated)
    print(f"\none step, {CAPTIONS} partial captions: stated right {row.stated:.3f}, valid {row.valid:.3f}")
    assert row.stated >= 0.93
    assert row.valid >= 0.88
