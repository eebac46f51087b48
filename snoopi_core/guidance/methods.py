"""The methods by which NASA Apply can steer: each changes Z+, the response of a cross-attention to the prompt.

Dimensions: R positive rows, N image tokens, C = H * D concatenated heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from .nag import BLEND, TAU, nag_change
from .nasa import nasa_change
from .orthogonal import orthogonal_change
from .vsf import vsf_change

Change = Callable[[torch.Tensor | None, torch.Tensor, torch.Tensor | None, torch.Tensor], torch.Tensor]
JointResponse = Literal["part", "whole", "text"]
"""What Z- is where text and image are the tokens of one attention: of the attention that the image would have with the
negative as its prompt, the negative's part, m_N Z_N; that whole attention; or the attention to the negative alone, Z_N.
"""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method with its settings. At strength 0 the node does not act, whatever the method.

    name: in the node's list.
    settings: settings other than the strength, for messages.
    usual: the published strengths, for messages.
    highest_published: the highest of them, where NASA's limits do not apply.
    highest: the highest strength that is accepted, far above the useful range.
    change: (Z+, Z-, share, strength) -> what is added to Z+, (R, N, C) each. The share is that of the negative's tokens
        in an attention to both prompts.
    uses_prompt, uses_share: whether the change depends on Z+ and on the share; what it does not depend on may be None.
    needs_response: whether nothing changes where Z- is zero.
    in_joint_attention: what Z- is in joint attention; the share is then that in an attention to both prompts and the
        image.
    """

    name: str
    settings: str = ""
    usual: str
    highest_published: float | None = None
    highest: float = 4.0
    change: Change = field(repr=False, compare=False)
    uses_prompt: bool = True
    uses_share: bool = False
    needs_response: bool = False
    in_joint_attention: JointResponse = "part"

    def __str__(self) -> str:
        return f"{self.name} ({self.settings})" if self.settings else self.name


NASA = Method(
    name="NASA",
    usual="0.04 to 1",
    change=lambda z_pos, z_neg, share, strength: nasa_change(z_neg, strength),
    uses_prompt=False,
    needs_response=True,
)
METHOD_NAMES = ("NASA", "NAG", "VSF", "orthogonal")


def make_method(name: str, *, nag_tau: float = TAU, nag_blend: float = BLEND, vsf_beta: float = 0.0) -> Method:
    """A method by its name in the node; settings of the other methods are not used.

    Raises:
        ValueError: the name is unknown, or a setting of this method is out of range; says what is expected.
    """
    if name == "NASA":
        return NASA
    if name == "NAG":
        if not (1.0 <= nag_tau < float("inf") and 0.0 < nag_blend <= 1.0):
            raise ValueError(
                f"nag_tau is {nag_tau:g} and nag_blend is {nag_blend:g}; expected nag_tau of at least 1, and nag_blend "
                "above 0 and at most 1"
            )
        return Method(
            name=name,
            settings=f"tau {nag_tau:g}, blend {nag_blend:g}",
            usual="2 to 10",
            highest_published=10.0,
            highest=20.0,
            change=lambda z_pos, z_neg, share, phi: nag_change(z_pos, z_neg, phi, tau=nag_tau, blend=nag_blend),
            in_joint_attention="whole",
        )
    if name == "VSF":
        if not abs(vsf_beta) <= 20.0:
            raise ValueError(f"vsf_beta is {vsf_beta:g}, expected -20 to 20; 0 is neutral")
        return Method(
            name=name,
            settings=f"beta {vsf_beta:g}",
            usual="1 to 4",
            highest_published=4.0,
            highest=20.0,
            change=lambda z_pos, z_neg, share, scale: vsf_change(z_pos, z_neg, share, scale, beta=vsf_beta),
            uses_share=True,
            in_joint_attention="text",
        )
    if name == "orthogonal":
        return Method(
            name=name,
            usual="as for NASA",
            change=lambda z_pos, z_neg, share, alpha: orthogonal_change(z_pos, z_neg, alpha),
            needs_response=True,
        )
    raise ValueError(f"method {name!r} is not known; available: {', '.join(METHOD_NAMES)}")
