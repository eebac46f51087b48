"""PyTorch's attention kernels with their log-sum-exp, which its public function does not return.

The operators are private to PyTorch. So before one is used, it is tried on this device and type: its result must be
that of the public function bit for bit, and its log-sum-exp right. If not, or if it does not exist, NASA uses another
way (`share.py`).

Dimensions: B rows, H heads, Q queries, K keys, D head width.
"""

from __future__ import annotations

import contextlib
import functools

import comfy.ops
import torch
from torch.nn.functional import scaled_dot_product_attention

_FLASH, _EFFICIENT, _CUDNN = 1, 2, 3
"""PyTorch's numbers of its kernels (`SDPBackend`); on CPUs the first is another flash attention."""
_TRY_QUERIES, _TRY_KEYS = 80, (80, 209)
"""As many as the queries, and more, of a number that no kernel has tiles of."""
_MAX_ROWS = 2**15
"""More rows are split by the host."""


def has_lse(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether `attend_with_lse` computes exactly what the host's PyTorch attention would; for (B, H, Q or K, D)."""
    if q.shape[-1] % 8 or q.shape[-1] != v.shape[-1] or q.shape[1] != k.shape[1] or q.shape[0] > _MAX_ROWS:
        return False
    return _works(q.device, q.dtype, _choice(q, k, v), q.shape[-1])


def attend_with_lse(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(Q K^T / sqrt(D)) V, (B, H, Q, D), and log sum exp(Q K^T / sqrt(D)), (B, H, Q)."""
    return _run(_choice(q, k, v), q, k, v)


def _choice(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> int:
    """The kernel that PyTorch would take."""
    with _hosts_priority():
        return int(torch._fused_sdp_choice(q, k, v))


def _hosts_priority() -> contextlib.AbstractContextManager:
    """The host's order of kernels, where it sets one."""
    priority = getattr(comfy.ops, "SDPA_BACKEND_PRIORITY", None)
    if priority is None:
        return contextlib.nullcontext()
    return torch.nn.attention.sdpa_kernel(priority, set_priority=True)


def _run(choice: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    aten, queries = torch.ops.aten, q.shape[2]
    if q.device.type == "cpu":
        z, lse, *_ = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    elif choice == _FLASH:
        z, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v)
    elif choice == _EFFICIENT:
        z, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    else:
        z, lse, *_ = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)
        lse = lse.reshape(*q.shape[:2], -1)
    return z, lse[..., :queries]


@functools.cache
def _works(device: torch.device, dtype: torch.dtype, choice: int, width: int) -> bool:
    """Whether a kernel is right for heads of this width."""
    known = (_FLASH,) if device.type == "cpu" else (_FLASH, _EFFICIENT, _CUDNN)
    if choice not in known or device.type not in ("cpu", "cuda"):
        return False
    generator = torch.Generator().manual_seed(0)

    def draw(tokens: int) -> torch.Tensor:
        return torch.randn(1, 2, tokens, width, generator=generator).to(device, dtype)

    return all(_is_right(choice, draw(_TRY_QUERIES), draw(keys), draw(keys)) for keys in _TRY_KEYS)


def _is_right(choice: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    try:
        with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend(choice)):
            expected = scaled_dot_product_attention(q, k, v)
            z, lse = _run(choice, q, k, v)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # moved, renamed, or with other arguments
        return False
    logits = q.float() @ k.float().transpose(-1, -2) / q.shape[-1] ** 0.5
    is_right = lse.shape == logits.shape[:-1] and torch.allclose(lse.float(), logits.logsumexp(-1), atol=1e-3)
    return is_right and torch.equal(z, expected)
