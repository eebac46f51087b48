"""The image's response to a negative, and the negative's share of its attention, exactly.

NASA and the orthogonal method take the negative's part, m_N Z_N, which is computed in one of three ways:

    m_N Z_N = sum over n in N of e^n v_n / (e^N + e^I),     e^S = sum over keys j in S of exp(q k_j / sqrt(D))

    call     one more attention over [N ; I] with zeros for the image's values. For any attention function; costs as
             much as the layer's own attention.
    lse      the log-sum-exp that PyTorch's kernels compute anyway: e^I = e^(P+I) - e^P. The layer's own attention runs
             in the same kernel, called by its private name (`kernels.py`); then two attentions over text only.
    column   two more columns of values, 1 on P and 1 on I, give m_P and 1 - m_P beside Z+, for any attention function;
             then one attention over text only. The layer's own attention has wider heads and may round differently.

NAG takes the whole attention that the image would have with the negative as its prompt, by one more attention over
[N ; I]. VSF takes Z_N, an attention over N alone, and the negative's share of one softmax over all:

    m = e^N / (e^N + e^P + e^I)

    lse      sigmoid(log e^N - log e^(P+I)), from the same kernels
    call     one more attention over [P ; N ; I], to values that are 1 on N and 0 elsewhere

Dimensions: B rows of a call, R rows of its positive ones, P positive and N negative text tokens, I image tokens,
Q of them steered, H heads, D head width, C = H D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn.functional import pad

from ....guidance.methods import JointResponse
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


def respond_to_negative(
    attention: Attention,
    response: JointResponse,
    way: Way,
    kept: torch.Tensor | None,
    q: torch.Tensor,
    n: Tokens,
    p: Tokens,
    i: Tokens,
) -> tuple[torch.Tensor, torch.Tensor | None, Way | None]:
    """What a method takes for Z-, for image queries q, (R, Q, C).

    Args:
        way, kept: what `attend_jointly` returned, for these queries.

    Returns:
        Z- (R, Q, C); the share m, (R, Q, C), for the response "text"; and the way of the share, if there is one.
    """
    if response == "whole":
        return _attend(attention, q, n, i), None, None
    if n.mask is not None and way == "lse":
        way = "call"
    if response == "text":
        if way == "lse":
            return *_text_by_lse(attention, kept, q, n), way
        return *_text_by_call(attention, q, n, p, i), "call"
    if way == "lse":
        return _by_lse(attention, kept, q, n, p), None, way
    if way == "column":
        return _by_columns(attention, kept, q, n, p), None, way
    return _attend(attention, q, n, _with_values(i, 0.0)), None, way


def _attend(attention: Attention, q: torch.Tensor, *several: Tokens) -> torch.Tensor:
    """softmax over all these tokens of their values, (R, Q, C)"""
    axis = attention.axis
    mask = join_masks([(each.mask, each.k.shape[axis]) for each in several], q.dtype)
    return attention(
        q, torch.cat([each.k for each in several], axis), torch.cat([each.v for each in several], axis), mask
    )


def _with_values(tokens: Tokens, value: float) -> Tokens:
    return Tokens(tokens.k, torch.full_like(tokens.v, value), tokens.mask)


def _text_by_lse(
    attention: Attention, lse: torch.Tensor, q: torch.Tensor, n: Tokens
) -> tuple[torch.Tensor, torch.Tensor]:
    """Z_N, and m = sigmoid(log e^N - log e^(P+I))"""
    z, lse_n = attend_with_lse(*(attention.in_heads(x) for x in (q, n.k, n.v)))
    share = torch.sigmoid(lse_n - lse).unsqueeze(-1).to(z.dtype).expand_as(z)
    return z.transpose(1, 2).flatten(2), share.transpose(1, 2).flatten(2)


def _text_by_call(
    attention: Attention, q: torch.Tensor, n: Tokens, p: Tokens, i: Tokens
) -> tuple[torch.Tensor, torch.Tensor]:
    """Z_N, and m as the softmax over [P ; N ; I] of [0 ; 1 ; 0]"""
    ones_and_zeros = (_with_values(tokens, value) for tokens, value in ((p, 0.0), (n, 1.0), (i, 0.0)))
    return _attend(attention, q, n), _attend(attention, q, *ones_and_zeros)


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
