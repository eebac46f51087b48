"""The worlds that studies of negative prompts can measure, by name."""

from __future__ import annotations

from experiments.avatars.world import AVATARS
from experiments.shapes.world import SHAPES

WORLDS = {"shapes": SHAPES, "avatars": AVATARS}
BUNDLED = "avatars"  # the world of the student that comes with the nodes
