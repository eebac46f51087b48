"""What NASA has to know about a family of networks. A family is one file here and one test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from comfy.model_base import BaseModel

from ...blocks import Block

Options = dict[str, Any]
"""The host's transformer_options."""


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What one NASA Apply node wants.

    negative: the negative prompt's embedding as the text encoder returned it, (Bn, T, C), on the CPU.
    alpha: strength, a 0-dim tensor, so that a compiled model does not compile again when it changes.
    blocks: where to subtract.
    """

    negative: torch.Tensor
    alpha: torch.Tensor
    blocks: frozenset[Block]


class Attachment(Protocol):
    """One node's hold on the models it runs in. It may keep objects between calls, never anything computed."""

    def __call__(
        self, model: BaseModel, x: torch.Tensor, options: Options, proceed: Callable[[Options], torch.Tensor]
    ) -> torch.Tensor:
        """One call of `model.apply_model` with the negative's response subtracted.

        Args:
            model: the host's model, its weights as they are during sampling.
            x: the noisy latent, (B, ...), for its device.
            options: the call's transformer_options; not to be changed, but copied.
            proceed: runs the host's own call with the options that it is given.
        """
        ...


class Family(ABC):
    """Networks whose cross-attention is reached in the same way."""

    name: str
    """Shown to people, in the list of what is supported."""

    @abstractmethod
    def matches(self, model: BaseModel) -> bool:
        """Whether `model` is of this family."""

    @abstractmethod
    def blocks(self, model: BaseModel) -> tuple[Block, ...]:
        """Blocks with cross-attention, in the order in which they run; never empty for a model that matches."""

    @abstractmethod
    def context_width(self, model: BaseModel) -> int:
        """Width of the text embedding that the cross-attention takes."""

    @abstractmethod
    def attach(self, steering: Steering) -> Attachment:
        """Something that carries out `steering` in calls of models of this family."""
