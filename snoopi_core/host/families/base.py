"""The interface between NASA and a family of networks. Each family is one file here and one test.

Dimensions: R positive rows of a call, N image tokens, T text tokens, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from math import ceil
from typing import Any, Protocol

import torch
from comfy.model_base import BaseModel

from ...guidance.blocks import Block
from ..conditioning.negative import Negative, check_width
from .call import Call, Context, Grid, KeysValues, LayerKey, LayerObserver, Options, Select, Term

__all__ = [
    "Attachment", "Call", "Context", "Family", "Grid", "KeysValues", "Layer", "LayerKey", "LayerObserver", "Options",
    "Select", "Term", "TokenFamily", "has_values", "network_of",
]  # fmt: skip


class Layer(Protocol):
    """One cross-attention of a network."""

    @property
    def block(self) -> Block:
        """Its block, as named in NASA Apply's `blocks`."""
        ...

    def keys_values(self, context: Context) -> KeysValues | None:
        """K- and V- from the layer's own projections, with the current weights; None if they depend on the call."""
        ...


class Attachment(Protocol):
    """Runs calls of a node's networks with steering. It may keep objects between calls, but no computed tensors."""

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """Run a call of the model with the steering of `call`.

        Args:
            model: the host's model, with its weights as during sampling.
            options: the call's transformer_options; copy, do not modify.
            proceed: runs the host's own call with the given options and extra arguments for the network.
        """
        ...


class Family(ABC):
    """Networks whose cross-attention is accessed in the same way."""

    name: str
    """Shown in messages, for example in the list of supported models."""
    alpha_note = ""
    """What to say of the strength where no value is known."""
    text_depends_on_time = False
    """Whether the context depends on the noise level, so that it is prepared for each step."""
    text_depends_on_size = False
    """Whether the context depends on the size of the picture, which may differ between calls of a run."""
    sound: frozenset[str] = frozenset()
    """Groups of blocks that work on sound, where a mask over the picture means nothing."""

    @abstractmethod
    def matches(self, model: BaseModel) -> bool:
        """Whether `model` belongs to this family."""

    @abstractmethod
    def layers(self, model: BaseModel) -> Mapping[LayerKey, Layer]:
        """All cross-attentions to text, in the order in which they run; not empty if the model matches."""

    @abstractmethod
    def check(self, model: BaseModel, negative: Negative) -> None:
        """Check that a negative belongs to this model.

        Raises:
            ValueError: it was made by another model's text encoder.
        """

    @abstractmethod
    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> Context:
        """The negative, prepared as the host prepares this model's prompts, on the model's device and in its dtype.

        Args:
            x, sigma, options: of the call for which it is prepared.
        """

    @abstractmethod
    def attach(self) -> Attachment:
        """A new attachment, which runs calls of models of this family."""

    def why_not(self, model: BaseModel, method: str) -> str:
        """Why the method of this name cannot act in a model, as a part of a sentence; "" if it can."""
        return ""

    def check_mask(self, blocks: Collection[Block]) -> None:
        """Check that a mask over the picture has a meaning in all these blocks.

        Raises:
            ValueError: some work on sound.
        """
        groups = {block.group for block in blocks}
        if groups & self.sound:
            picture = ", ".join(sorted(groups - self.sound))
            mend = f"Set blocks to {picture}, or disconnect the mask" if picture else "Disconnect the mask"
            raise ValueError(
                f"mask: it names a part of the picture, but the blocks {', '.join(sorted(groups & self.sound))} of "
                f"{self.name} work on sound. {mend}"
            )

    def ignores_zeros(self, model: BaseModel, blocks: frozenset[Block]) -> bool:
        """Whether a text of zeros has no response in these blocks, as far as that is known before sampling."""
        return False

    def kind(self, model: BaseModel) -> str | None:
        """The kind of model, a key of guidance.alpha.PRESETS_BY_KIND or "SDXL"; None if the paper does not cover it."""
        return None

    def blocks(self, model: BaseModel) -> tuple[Block, ...]:
        """Blocks with cross-attention, in the order in which they run."""
        return tuple(dict.fromkeys(layer.block for layer in self.layers(model).values()))


class TokenFamily(Family):
    """Networks that take the picture as tokens in a grid."""

    networks: tuple[type[torch.nn.Module], ...]
    """Exactly these classes: a subclass may have other attentions, or call its blocks in another way."""
    required: tuple[str, str] | None = None
    """A setting of prompts that only these models' text encoders add: its key, and its name in messages."""

    @abstractmethod
    def text_width(self, network: Any) -> int:
        """Width of the text encoder's output that the network takes."""

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        """Frames, height and width of the latent in one image token."""
        size = network.patch_size
        return (1, size, size) if isinstance(size, int) else (1, *size)[-3:]

    def check(self, model: BaseModel, negative: Negative) -> None:
        check_width(negative, self.text_width(network_of(model)))
        if self.required is not None:
            self.check_setting(negative, *self.required)

    def check_setting(self, negative: Negative, key: str, name: str) -> None:
        """Raises ValueError, which calls it `name`, if a negative lacks this setting."""
        if negative.settings.get(key) is None:
            raise ValueError(
                f"negative has no {name}: it was made by another model's text encoder. Encode it with this {self.name} "
                "model's own CLIP"
            )

    def grid(self, network: Any, shape: torch.Size) -> Grid:
        """The grid of the image tokens of a latent (B, C, h, w) or (B, C, F, h, w)."""
        sizes = (1, *shape[2:]) if len(shape) == 4 else tuple(shape[2:])
        return tuple(ceil(size / patch) for size, patch in zip(sizes, self.patch_size(network), strict=True))


def has_values(keys_values: KeysValues | None) -> bool:
    """Whether V- has any value but zero, or is not known; if it has none, Z- is zero. Waits for the GPU."""
    if keys_values is None:
        return True
    *keys, values = keys_values
    # Of a joint projection, the second half.
    return bool((values if keys else values.chunk(2, dim=-1)[1]).any())


def network_of(model: BaseModel) -> torch.nn.Module:
    """The network itself, without torch.compile's wrapper."""
    network = model.diffusion_model
    return getattr(network, "_orig_mod", network)
