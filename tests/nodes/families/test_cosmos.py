"""Cosmos-Predict2 and Anima."""

from __future__ import annotations

import pytest
from families.contract import FamilyContract, steer

pytestmark = pytest.mark.host


class TestCosmosPredict2(FamilyContract):
    name = "Cosmos-Predict2"
    invisible = ("no masks", "after the projection")  # there are none, and the projection has no bias


class TestAnima(FamilyContract):
    name = "Anima"
    invisible = ("no masks", "after the projection")  # there are none, and the projection has no bias

    test_each_row_has_its_own_negative = None  # the host takes one list of T5 tokens for all rows

    def test_a_negative_without_t5_tokens_is_refused(self, subject):
        """The adapter makes the text from them."""
        negative = subject.condition(3)
        del negative["t5xxl_ids"]
        with pytest.raises(ValueError, match="text encoder"):
            steer(subject.patcher, negative)
