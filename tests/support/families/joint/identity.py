"""A negative that is the prompt itself: then NASA takes alpha times the prompt's part out of the image's attention.

    N = P:   m_N Z_N = sum over p in P of e^p v_p / (e^P + e^I),
             Z = softmax over P + I of [(1 - alpha) v_P ; v_I]

By VSF with the scale alpha (`twice`), the prompt competes for the image's attention twice:

             Z = (e^I Z_I + (1 - alpha) e^P Z_P) / (e^I + 2 e^P)

So the plain network, with this attention for the picture's queries, gives the expected result. It is an override of the
host's attention function, in fp64, and needs nothing but the layout of the tokens. Nothing of `snoopi_core` is used.
"""

from __future__ import annotations

from typing import Any

import torch

from ..base import Condition
from .networks import Network

MUTANTS = ("plus", "m = 1", "P's queries too")


def without_prompt(
    subject: Network,
    positive: Condition,
    alpha: float,
    *,
    patcher: Any = None,
    start: int = 0,
    image: int | None = None,
    inner: Any = None,
    skipped: int = 0,
    twice: bool = False,
    mutant: str | None = None,
    **settings: Any,
) -> torch.Tensor:
    """The plain network's picture with this attention.

    start: where the picture's own tokens begin among `image` tokens; `inner`: see WithoutPrompt.
    patcher: the network with other nodes, `skipped` of whose blocks do not run.
    settings: added to the prompt.
    """
    override = WithoutPrompt(
        alpha, subject.text(positive["context"].shape[1]), image or subject.image or subject.grid,
        picture=slice(start, start + subject.grid), image_first=subject.image_first, inner=inner, twice=twice,
        mutant=mutant,
    )  # fmt: skip
    out = subject.sample(with_override(patcher or subject.patcher, override), positive, positive, **settings)
    assert override.calls == subject.joint_blocks - skipped
    return out


def with_override(patcher: Any, override: Any) -> Any:
    """A clone with another attention function."""
    out = patcher.clone()
    out.model_options["transformer_options"]["optimized_attention_override"] = override
    return out


class WithoutPrompt:
    """The override. Attentions of other lengths, such as those of text refiners, are left alone.

    text: number of text tokens.
    image: of image tokens, of which `picture` are steered.
    inner: another override, which only changes its arguments.
    twice: as VSF.
    mutant: a wrong formula, one of MUTANTS: tests of the tests.
    """

    def __init__(
        self,
        alpha: float,
        text: int,
        image: int,
        *,
        picture: slice,
        image_first: bool = False,
        inner: Any = None,
        twice: bool = False,
        mutant: str | None = None,
    ) -> None:
        self.alpha, self.text, self.image, self.picture, self.image_first = alpha, text, image, picture, image_first
        self.inner, self.twice, self.mutant = inner, twice, mutant
        self.calls = 0

    def __call__(self, function: Any, q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.inner is not None:
            changed: list[Any] = []
            self.inner(lambda *a, **_: changed.append(a[:3]), q, k, v, *args, **kwargs)
            q, k, v = changed[0]
        axis = 2 if kwargs.get("skip_reshape") else 1
        z = function(q, k, v, *args, **kwargs)
        if q.shape[axis] != self.text + self.image:
            return z
        self.calls += 1
        heads = args[0] if args else kwargs["heads"]
        mask = args[1] if len(args) > 1 else kwargs.get("mask")
        v = v.flatten(2) if v.ndim > q.ndim else v
        q, k, v = (x if axis == 2 else x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        q, k, v = (x.double().repeat_interleave(heads // x.shape[1], 1) for x in (q, k, v))
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            logits = logits + (mask.unsqueeze(1) if mask.ndim == 3 else mask)
        weights = logits.softmax(-1)
        start = self.image if self.image_first else 0
        first = (0 if self.image_first else self.text) + self.picture.start
        text = torch.arange(start, start + self.text)
        queries = torch.arange(first, first + self.picture.stop - self.picture.start)
        if self.mutant == "P's queries too":
            queries = torch.cat([queries, text])
        queries = queries[:, None]
        part = weights[..., queries, text]
        share = part.sum(-1, keepdim=True)
        alpha = -self.alpha if self.mutant == "plus" else self.alpha
        weights[..., queries, text] -= alpha * (part / share if self.mutant == "m = 1" else part)
        if self.twice:
            weights[..., queries[:, 0], :] /= 1.0 + share
        out = (weights @ v).to(z.dtype)
        return out if kwargs.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)
