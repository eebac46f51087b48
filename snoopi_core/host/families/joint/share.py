"""The negative's share of the image's attention: m_N Z_N, exactly, in three ways.

    m_N Z_N = sum over n in N of e^n v_n / (e^N + e^I),     e^S = sum over keys j in S of exp(q k_j / sqrt(D))

    call     one more attention over [N ; I] with zeros for the image's values. For any attention function; costs as
             much as the layer's own attention.
    lse      the log-sum-exp that PyTorch's kernels compute anyway: e^I = e^(P+I) - e^P. The layer's own attention runs
             in the same kernel, called by its private name (`kernels.py`); then two attentions over text only.
    column   two more columns of values, 1 on P and 1 on I, give m_P and 1 - m_P beside Z+, for any attention function;
             then one attention over text only. The layer's own attention has wider heads and may round differently.

Dimensions: B rows of a call, R rows of its positive ones, P positive and N negative text tokens, I image tokens,
Q of them steered, H heads, D head width, C = H D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn.functional import pad

from .attention import Attention, Tokens, join_masks
from .kernels import attend_with_lse, has_lse

Way = Literal["lse", "column", "call"]
DEFAULT_WAYS: tuple[Way, ...] = ("lse", "call")
"""Which to try, in this order. Without `column`: it is exact, but changes the last digits of the layer's own attention
(measured: tests/nodes/families/joint/test_share.py), also where NASA does not act."""
_COLUMNS = 8
"""Added to the width of heads: kernels want multiples of 8."""


def attend_jointly(
    attention: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, text: slice, ways: Sequence[Way]
) -> tuple[torch.Tensor, Way, torch.Tensor | None]:
    """The layer's own attention.

    Args:
        text: where P is among the tokens.
        ways: to try in this order.

    Returns:
        Z+ (B, P + I, C); the first way that is possible; and what that way needs of all queries: log-sum-exp
        (B, H, P + I), or m_P and 1 - m_P (B, H, P + I, 2).
    """
    for way in ways:
        if way == "lse" and _lse_is_possible(attention, q, k, v):
            z, lse = attend_with_lse(*(attention.in_heads(x) for x in (q, k, v)))
            return z.transpose(1, 2).flatten(2), way, lse
        if way == "column":
            z, shares = _attend_with_columns(attention, q, k, v, text)
            return z, way, shares
        if way == "call":
            break
    return attention(q, k, v, attention.mask), "call", None


def share_of_negative(
    attention: Attention, way: Way, kept: torch.Tensor | None, q: torch.Tensor, n: Tokens, p: Tokens, i: Tokens
) -> torch.Tensor:
    """m_N Z_N for image queries q, (R, Q, C).

    Args:
        kept: what `attend_jointly` returned, for these queries.
    """
    if way == "lse":
        return _by_lse(attention, kept, q, n, p)
    if way == "column":
        return _by_columns(attention, kept, q, n, p)
    return _by_call(attention, q, n, i)


def _by_call(attention: Attention, q: torch.Tensor, n: Tokens, i: Tokens) -> torch.Tensor:
    """softmax over [N ; I] of [v_n ; 0]"""
    axis = attention.axis
    mask = join_masks([(n.mask, n.k.shape[axis]), (i.mask, i.k.shape[axis])], q.dtype)
    return attention(q, torch.cat([n.k, i.k], axis), torch.cat([n.v, torch.zeros_like(i.v)], axis), mask)


def _lse_is_possible(attention: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    if torch.compiler.is_compiling() or not attention.is_pytorch or attention.mask is not None:
        return False
    return has_lse(*(attention.in_heads(x) for x in (q, k, v)))


def _by_lse(attention: Attention, lse: torch.Tensor, q: torch.Tensor, n: Tokens, p: Tokens) -> torch.Tensor:
    """m_N = e^N / (e^N + e^I) = sigmoid(log e^N - log e^I),   log e^I = log e^(P+I) + log(1 - e^P / e^(P+I))"""
    q = attention.in_heads(q)
    z_n, lse_n = attend_with_lse(q, *(attention.in_heads(x) for x in (n.k, n.v)))
    _, lse_p = attend_with_lse(q, *(attention.in_heads(x) for x in (p.k, p.v)))
    lse_i = lse + torch.log1p(-torch.exp(lse_p - lse).clamp(max=1.0))
    z = z_n * torch.sigmoid(lse_n - lse_i).unsqueeze(-1).to(z_n.dtype)
    return z.transpose(1, 2).flatten(2)


def _attend_with_columns(
    attention: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, text: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Z+ (B, tokens, C), and the shares of P and of all other tokens, (B, H, tokens, 2)."""
    v = attention.in_heads(v)
    columns = v.new_zeros(*v.shape[:-1], _COLUMNS)
    columns[..., 1] = 1.0
    columns[..., text, 0], columns[..., text, 1] = 1.0, 0.0
    return _attend_widened(attention, q, k, torch.cat([v, columns], -1), attention.mask)


def _by_columns(attention: Attention, shares: torch.Tensor, q: torch.Tensor, n: Tokens, p: Tokens) -> torch.Tensor:
    """With m' = e^N / (e^N + e^P):  m_N = m' m_P / (m' m_P + (1 - m') (1 - m_P)),  and m_N Z_N = (m' Z_N) m_N / m'"""
    axis = attention.axis
    v_n, v_p = (attention.in_heads(x) for x in (n.v, p.v))
    columns = [pad(v_n.new_ones(*v_n.shape[:-1], 1), (0, _COLUMNS - 1))]
    columns.append(pad(v_p.new_ones(*v_p.shape[:-1], 1), (1, _COLUMNS - 2)))
    values = torch.cat([torch.cat([v_n, columns[0]], -1), torch.cat([torch.zeros_like(v_p), columns[1]], -1)], 2)
    mask = join_masks([(n.mask, n.k.shape[axis]), (p.mask, p.k.shape[axis])], q.dtype)
    z, of_text = _attend_widened(attention, q, torch.cat([n.k, p.k], axis), values, mask)
    (m, rest), (m_p, m_i) = of_text.float().unbind(-1), shares.float().unbind(-1)
    factor = m_p / (m * m_p + rest * m_i)
    z = z.unflatten(-1, (attention.heads, -1)).transpose(1, 2) * factor.unsqueeze(-1).to(z.dtype)
    return z.transpose(1, 2).flatten(2)


def _attend_widened(
    attention: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Z (B, queries, C), and its first two columns, (B, H, queries, 2), for v (B, H, keys, D + columns)."""
    q, k = (attention.in_heads(x) for x in (q, k))
    width = q.shape[-1]
    # Zeros add nothing to q k; the scale must stay that of the original width.
    q, k = (pad(x, (0, _COLUMNS)) for x in (q * ((width + _COLUMNS) / width) ** 0.5, k))
    z = attention(*(attention.from_heads(x) for x in (q, k, v)), mask)
    z = z.unflatten(-1, (attention.heads, -1))
    return z[..., :width].flatten(2), z[..., width : width + 2].transpose(1, 2)
