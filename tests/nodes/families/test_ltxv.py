"""LTX-Video."""

from __future__ import annotations

import pytest
from families.contract import FamilyContract, steer

pytestmark = pytest.mark.host


class TestLTXV(FamilyContract):
    name = "LTXV"

    def test_a_negative_without_a_mask_is_refused(self, subject):
        """This family's text encoder always gives one, and the host's network insists on it."""
        negative = subject.condition(3)
        del negative["attention_mask"]
        with pytest.raises(ValueError, match="attention mask"):
            steer(subject.patcher, negative)
