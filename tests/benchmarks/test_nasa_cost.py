"""The benchmark's networks, small: every case runs, does what it is named after, and costs what it should."""

import pytest
import torch
from effort import some
from full_width import CURRENT
from nasa_cost import CASES, flops, steps

pytestmark = pytest.mark.host

QUICK = [key for key in CURRENT if key.endswith("-quick")]


@pytest.mark.parametrize("key", some(QUICK, 2))
def test_each_case_acts_and_is_cheaper_than_cfg(key):
    model = CURRENT[key]
    cases = steps(model, list(CASES), bf16=False)
    assert ("NAG (core)" in cases) == model.core_nag
    drawn = {name: step() for name, step in cases.items()}
    packed = {name: torch.cat([x.flatten() for x in ([z] if isinstance(z, torch.Tensor) else z.unbind())])
              for name, z in drawn.items()}  # fmt: skip
    for name, latent in packed.items():
        assert latent.isfinite().all()
        assert (name == "plain") == torch.equal(latent, packed["plain"]), f"{name} does nothing"
    work = {name: flops(step) / flops(cases["plain"]) for name, step in cases.items()}
    assert work["CFG 2"] == 2.0
    assert 1.0 < work["NASA"] < 2.0 and 1.0 < work["NAG"] < 2.0
