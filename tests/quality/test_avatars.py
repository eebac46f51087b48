"""What the bundled student does, through the nodes, at one step: captions, variety and the fixed pairs' removal.

The bars are below the measured values (docs/RESULTS.md), so that a change that breaks the effect is detected.
"""

from pathlib import Path

import pytest
from effort import effort
from host_world import HostStudent

from experiments.avatars import measure
from experiments.avatars.world import AVATARS
from experiments.removal import mean_removal, removal_table
from snoopi_core.formats.checkpoint import read_metadata
from training.prompts.avatars.rules import read

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.scaled]
CAPTIONS = effort(gate=60, full=200)
IMAGES = effort(gate=16, full=60)
SEED = 300_000  # seeds that were not used in training or to choose alpha


@pytest.fixture(scope="module")
def student(pack_root):
    path = pack_root / AVATARS.student
    return HostStudent(Path(path).name, alpha=read_metadata(path).recommended_alpha)


@pytest.mark.parametrize(("kind", "valid_bar"), [("partial", 0.60), ("full", 0.70)])
def test_one_step_follows_captions(student, kind, valid_bar):
    captions, stated = measure.caption_set(CAPTIONS, 310_000, kind)
    row = measure.accuracy(read(student(captions, list(range(CAPTIONS)))), stated)
    print(f"\none step, {CAPTIONS} {kind} captions: stated right {row.stated:.3f}, valid {row.valid:.3f}")
    assert row.stated >= 0.85
    assert row.valid >= valid_bar


def test_the_fixed_pairs(student):
    before = mean_removal(removal_table(AVATARS, student, list(AVATARS.fixed), steer=False, count=IMAGES, seed=SEED))
    after = mean_removal(removal_table(AVATARS, student, list(AVATARS.fixed), count=IMAGES, seed=SEED))
    print(f"\nalpha {student.alpha:g}, {IMAGES} images a pair: {before} -> {after}")
    assert after.absent >= before.absent + 0.20
    assert after.kept >= 0.90


def test_people_differ(student):
    seen = read(student(["a person"] * IMAGES, list(range(SEED, SEED + IMAGES))))
    entropies = measure.open_entropies(seen.scenes, measure.OPEN_PROMPTS["a person"])
    print(f"\n{IMAGES} people, bits: {entropies}")
    assert sum(entropies.values()) / len(entropies) >= 1.2, "the shapes world's student has nearly 0"
