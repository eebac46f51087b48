"""HunyuanDiT 1.2; test_contract_beside.py has 1.1."""

from __future__ import annotations

import pytest
from families.contract import FamilyContract, steer

pytestmark = pytest.mark.host


class TestHunyuanDiT(FamilyContract):
    name = "HunyuanDiT 1.2"

    def test_a_negative_of_clip_alone_is_refused(self, subject):
        negative = subject.condition(3)
        del negative["conditioning_mt5xl"]
        with pytest.raises(ValueError, match="mT5"):
            steer(subject.patcher, negative)
