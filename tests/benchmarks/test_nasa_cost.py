"""The benchmark's networks, small: every case runs, does what it is named after, and costs what it should."""

import pytest
import torch
import without_products
from effort import some
from full_width import CURRENT
from live_bytes import most_live_bytes
from nasa_cost import ALPHAS, CASES, steps
from operations import flops
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    assert all(1.0 < work[name] < 2.0 for name in ALPHAS)


def test_attention_is_counted_however_it_is_computed():
    q, k, v = (torch.randn(2, 3, tokens, 8, requires_grad=True) for tokens in (16, 24, 24))

    def attend():
        F.scaled_dot_product_attention(q, k, v).sum().backward()

    with sdpa_kernel(SDPBackend.MATH):
        products = flops(attend)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = flops(attend)
    one = 2 * 2 * 3 * 16 * 24 * 8
    assert products == 6 * one  # scores and values; forward, and two gradients of each
    assert fused == 7 * one  # the scores once more in the backward pass


def test_the_memory_is_that_of_the_tensors_that_exist_at_a_time():
    weight = torch.ones(100, 100)

    def step():
        product = torch.zeros(100, 100) @ weight.t()
        same = product.view(-1)
        more = same + 1
        more.add_(1)
        del product, same
        return more * 2

    assert most_live_bytes(step) == 2 * weight.nbytes


@pytest.mark.parametrize("key", ["wan22-quick", "z-image-quick"])
def test_what_is_counted_does_not_depend_on_computing_it(key, monkeypatch):
    monkeypatch.setattr(without_products, "_LARGE", 2**10)
    for step in steps(CURRENT[key], ["plain", "NASA", "VSF"], bf16=False).values():
        computed = flops(step), most_live_bytes(step)
        with without_products.WithoutProducts():
            counted = flops(step), most_live_bytes(step)
        assert counted[0] == computed[0]
        assert counted[1] == pytest.approx(computed[1], rel=0.05)  # small tensors still count in small networks
