"""Methods other than NASA, token by token against their formulas."""

from __future__ import annotations

import pytest
import torch

from snoopi_core.guidance.methods import METHOD_NAMES, NASA, make_method
from snoopi_core.guidance.nag import nag_change
from snoopi_core.guidance.orthogonal import orthogonal_change
from snoopi_core.guidance.vsf import share_values, vsf_change


def responses(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 5, 8, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_nag():
    z_pos, z_neg = responses()
    phi, tau, a = 1.0, 2.5, 0.375
    got = z_pos + nag_change(z_pos, z_neg, phi, tau=tau, blend=a)
    bounded = 0
    for b in range(2):
        for n in range(5):
            plus, minus = z_pos[b, n], z_neg[b, n]
            far = plus + phi * (plus - minus)
            ratio = far.abs().sum() / plus.abs().sum()
            bounded += int(ratio > tau)
            torch.testing.assert_close(got[b, n], a * min(ratio, tau) / ratio * far + (1 - a) * plus)
    assert 0 < bounded < 10  # some tokens are above the bound and some below
    assert torch.equal(nag_change(z_pos, z_neg, 0.0), torch.zeros_like(z_pos))


def test_the_orthogonal_part_is_the_remainder_of_the_projection():
    z_pos, z_neg = responses()
    got = -orthogonal_change(z_pos, z_neg, 1.0)
    for b in range(2):
        for n in range(5):
            basis = torch.linalg.qr(z_pos[b, n, :, None]).Q  # projects on a unit vector instead of using the formula
            torch.testing.assert_close(got[b, n], z_neg[b, n] - basis @ (basis.T @ z_neg[b, n]))


@pytest.mark.parametrize("beta", [0.0, 0.7, -0.7])
def test_vsf_is_one_softmax_over_both_prompts(beta):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, tokens, 4, generator=generator, dtype=torch.float64) for tokens in (6, 7, 7))
    tokens, scale = 3, 0.8
    logits = q @ k.mT / 2
    z_pos, z_neg = logits[..., :tokens].softmax(-1) @ v[:, :tokens], logits[..., tokens:].softmax(-1) @ v[:, tokens:]
    share = logits.softmax(-1) @ share_values(v[:, :tokens], v[:, tokens:])
    logits[..., tokens:] -= beta
    expected = logits.softmax(-1) @ torch.cat([v[:, :tokens], -scale * v[:, tokens:]], dim=1)
    torch.testing.assert_close(z_pos + vsf_change(z_pos, z_neg, share, scale, beta=beta), expected)


@pytest.mark.parametrize("beta", [-20.0, 20.0])
def test_vsf_in_half_precision_at_the_ends_of_its_setting(beta):
    z_pos, z_neg, share = (torch.rand(1, 4, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    expected = vsf_change(z_pos, z_neg, share, 0.8, beta=beta)
    got = vsf_change(z_pos.half(), z_neg.half(), share.half(), 0.8, beta=beta)
    torch.testing.assert_close(got.float(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_norms_do_not_overflow_in_fp16(name):
    """A token of 1280 channels of size 100 has an L1 norm beyond the range of fp16."""
    z_pos, z_neg = (100.0 * each.repeat(1, 1, 160).half() for each in responses())
    change = make_method(name).change(z_pos, z_neg, torch.full_like(z_pos, 0.5), torch.tensor(0.5))
    expected = make_method(name).change(
        z_pos.double(), z_neg.double(), torch.full_like(z_pos, 0.5).double(), torch.tensor(0.5)
    )
    assert change.dtype == torch.float16
    torch.testing.assert_close(change.double(), expected, rtol=1e-2, atol=0.2)


def test_names_and_settings():
    assert make_method("NASA") is NASA and str(make_method("NAG", nag_tau=3.0)) == "NAG (tau 3, blend 0.375)"
    for wrong, message in (
        ({"name": "CFG"}, "available: NASA, NAG, VSF, orthogonal"),
        ({"name": "NAG", "nag_tau": 0.5}, "at least 1"),
        ({"name": "NAG", "nag_blend": float("nan")}, "above 0"),
        ({"name": "VSF", "vsf_beta": float("inf")}, "-20 to 20"),
    ):
        with pytest.raises(ValueError, match=message):
            make_method(**wrong)
    make_method("NASA", nag_tau=0.5)  # settings of other methods are not used
