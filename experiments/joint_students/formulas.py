"""What may be subtracted in joint attention, as methods of the pack's own attachment, and how a model is steered.

    m_N     Z+ - alpha m_N Z_N     NASA Apply's own: m_N = e^N / (e^N + e^I)
    m_P     Z+ - alpha m_P Z_N     the prompt's share, m_P = e^P / (e^P + e^I): Z_P is replaced by Z_P - alpha Z_N
    m = 1   Z+ - alpha Z_N         the paper's Z- as it is in cross-attention
    whole   Z+ - alpha Z(N + I)    what VSF's paper (arXiv 2508.10931) calls NASA: the whole attention with the negative

NAG and VSF are those of NASA Apply. Z_N is the attention to the negative's text alone; e^S as in joint/attachment.py.
Import after `host.start_host()`.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from snoopi_core.guidance.methods import NASA, Method, make_method
from snoopi_core.guidance.nasa import nasa_change
from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

Conditioning = list[list[Any]]
FORMULAS = ("m_N", "m_P", "m = 1", "whole", "NAG", "VSF", "orthogonal")


def steered(
    patcher: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    formula: str,
    strength: float,
    **others: float,
) -> ModelPatcher:
    """A clone of `patcher` that is steered by one of FORMULAS, in all blocks and steps.

    Args:
        positive: the prompt, which m_P needs.
        others: tau and blend for NAG, beta for VSF.

    Raises:
        ValueError: the formula is unknown.
    """
    if formula == "m_P":
        share = _PromptShare()
        # The prompt as a negative has the prompt's keys and values, so its share of an attention to both and the image
        # gives m_P. It changes nothing, and comes before the negative in each layer.
        patcher = _apply(patcher, positive, share.recorder, 1.0)
        return _apply(patcher, negative, share.subtraction, strength)
    return _apply(patcher, negative, _method(formula, others), strength)


def _apply(patcher: ModelPatcher, negative: Conditioning, method: Method, strength: float) -> ModelPatcher:
    return apply_nasa(patcher, negative, alpha=strength, window=Window(), blocks="all", method=method)


def _method(formula: str, others: dict[str, float]) -> Method:
    if formula == "m_N":
        return NASA
    if formula in ("m = 1", "whole"):
        return Method(
            name="NASA",
            settings=formula,
            usual="experimental",
            change=lambda z_pos, z_neg, share, strength: nasa_change(z_neg, strength),
            uses_prompt=False,
            in_joint_attention="text" if formula == "m = 1" else "whole",
        )
    if formula in ("NAG", "VSF", "orthogonal"):
        return make_method(formula, **{f"{formula.lower()}_{key}": value for key, value in others.items()})
    raise ValueError(f"formula {formula!r} is not known; available: {', '.join(FORMULAS)}")


class _PromptShare:
    """Hands m_P from one negative of a layer to the next one."""

    def __init__(self) -> None:
        self.recorder = self._as_method("the prompt's share", self._record)
        self.subtraction = self._as_method("m_P", self._subtract)

    def _as_method(self, settings: str, change: Any) -> Method:
        return Method(
            name="NASA",
            settings=settings,
            usual="experimental",
            change=change,
            uses_prompt=False,
            uses_share=True,
            in_joint_attention="text",
        )

    def _record(self, z_pos: None, z_neg: torch.Tensor, share: torch.Tensor, strength: Any) -> torch.Tensor:
        """s = e^P / (e^P + e^P + e^I), so m_P = s / (1 - s)."""
        self._share = share / (1.0 - share)
        return torch.zeros_like(z_neg)

    def _subtract(self, z_pos: None, z_neg: torch.Tensor, share: torch.Tensor, strength: Any) -> torch.Tensor:
        return nasa_change(self._share * z_neg, strength)
