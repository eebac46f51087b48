"""Stable Diffusion's UNet; other shapes of it are in test_nasa_numerics.py."""

from __future__ import annotations

import pytest
from families.contract import FamilyContract

pytestmark = pytest.mark.host


class TestUNet(FamilyContract):
    name = "UNet SD1.5"
    choices = (("input.1", [0]), ("output.2-3, middle", [2, 3, 4]), ("input, middle, output", None))
    known_blocks = "input.1"
    invisible = ("no masks",)  # the host has none here
