"""Guidance in the cross-attention of a diffusers network: the base of NASA and of the methods it is compared with.

Dimensions: B batch rows, N image tokens, T text tokens, H heads, D head width, C = H * D.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

from training.models.text_embeddings import TextEmbeddings

CROSS_ATTENTION = ".attn2.processor"


class GuidanceProcessor:
    """A cross-attention processor that steers away from a negative prompt, before the output projection.

    A method implements `combine`, or overrides `respond` if it does not work on Z+ and Z-.

    Args:
        negative: the encoded negative prompt, one row or B.
        strength: 0 is the unmodified layer, unless `is_neutral` says otherwise.
    """

    def __init__(self, negative: TextEmbeddings, strength: float) -> None:
        self.unprojected = self.negative = negative
        self.strength = strength

    def project(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """A forward hook that projects the negative like the positive prompt just before it."""
        states = module.forward(self.unprojected.states.to(args[0]))
        self.negative = TextEmbeddings(states=states, mask=self.unprojected.mask)

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states (B, N, C) in, (B, N, C) out; the block adds the residual.

        Raises:
            ValueError: the layer is not a plain cross-attention, or the number of negative rows does not fit.
        """
        if (
            encoder_hidden_states is None
            or attn.norm_cross
            or attn.group_norm is not None
            or attn.spatial_norm is not None
        ):
            raise ValueError(
                "guidance needs plain cross-attention (text embeddings, no extra norms); this layer has another form"
            )
        rows = len(hidden_states)
        if len(self.negative) not in (1, rows):
            raise ValueError(
                f"the negative prompt has {len(self.negative)} rows; expected 1 or {rows}, as in the positive prompt"
            )
        negative = self.negative.states.to(encoder_hidden_states).expand(rows, -1, -1)
        query = _heads(attn.to_q(hidden_states), attn.heads)
        z = self.respond(attn, query, encoder_hidden_states, negative, attention_mask, self._mask(query))
        return attn.to_out[1](attn.to_out[0](z)) / attn.rescale_output_factor

    def respond(
        self,
        attn: Attention,
        query: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor,
        mask: torch.Tensor | None,
        negative_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The layer's response (B, N, C) to query (B, H, N, D), texts (B, T, E) and masks (B, 1, T)."""
        return self.combine(attend(attn, query, positive, mask), attend(attn, query, negative, negative_mask))

    @property
    def is_neutral(self) -> bool:
        """Whether it changes nothing; it is not attached then."""
        return self.strength == 0

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        """The layer's response (B, N, C) from the responses Z+ and Z- (B, N, C) to the two prompts."""
        raise NotImplementedError

    def _mask(self, query: torch.Tensor) -> torch.Tensor | None:
        """The mask of the negative's padding, (B, 1, T), which diffusers adds to the attention scores."""
        if self.negative.mask is None:
            return None
        return ((~self.negative.mask).to(query.dtype) * -10000.0)[:, None].expand(len(query), -1, -1)


def _heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, C) to (B, H, N, D)."""
    return states.unflatten(2, (heads, -1)).transpose(1, 2)


def attend(attn: Attention, query: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Z = softmax(Q K^T / sqrt(D)) V on the concatenated heads, (B, N, C); context (B, T, E), mask (B, 1, T)."""
    return attend_to(attn, query, attn.to_k(context), attn.to_v(context), mask)


def attend_to(
    attn: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """As `attend`, for keys and values (B, T, C)."""
    key, value, tokens = _heads(key, attn.heads), _heads(value, attn.heads), key.shape[1]
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, tokens, len(query)).view(len(query), attn.heads, -1, tokens)
    z = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return z.transpose(1, 2).flatten(2)


@contextmanager
def attach(network: nn.Module, guidance: GuidanceProcessor) -> Iterator[nn.Module]:
    """Use `guidance` in the cross-attention of `network` inside the context; the previous processors are restored.

    Args:
        network: a UNet2DConditionModel or PixArtTransformer2DModel of diffusers.
        guidance: not attached if it is neutral.

    Raises:
        ValueError: the network has no layer `*.attn2`, so the guidance would do nothing.
    """
    if guidance.is_neutral:
        yield network
        return
    before = dict(network.attn_processors)
    if not any(name.endswith(CROSS_ATTENTION) for name in before):
        raise ValueError(
            f"{type(network).__name__} has no cross-attention *{CROSS_ATTENTION}, so guidance would do nothing; it has "
            f"{', '.join(list(before)[:3]) or 'no attention'}"
        )
    # PixArt projects the text once, before its layers. A hook projects the negative too, at a time when sharded weights
    # are gathered.
    project = getattr(network, "caption_projection", None)
    hook = project.register_forward_hook(guidance.project) if project is not None else None
    # set_attn_processor empties the dict that it gets, hence the copies
    network.set_attn_processor(
        {name: guidance if name.endswith(CROSS_ATTENTION) else processor for name, processor in before.items()}
    )
    try:
        yield network
    finally:
        network.set_attn_processor(dict(before))
        if hook is not None:
            hook.remove()
