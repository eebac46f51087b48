"""NASA inside a diffusers network: every cross-attention answers Z+ - alpha Z-.

Dimensions: B batch rows, N image tokens, T text tokens, H heads, D head width, C = H * D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

from snoopi_core.guidance.nasa import steer_away
from training.models.text_embeddings import TextEmbeddings

CROSS_ATTENTION = ".attn2.processor"


class NasaProcessor:
    """A cross-attention processor that steers away from one negative prompt, before the output projection.

    Args:
        negative: the encoded negative prompt, of one row or B.
        alpha: strength; 0 is the plain layer.
    """

    def __init__(self, negative: TextEmbeddings, alpha: float) -> None:
        self.unprojected = self.negative = negative
        self.alpha = alpha

    def project(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """A forward hook: the negative takes the way that the positive prompt has just taken."""
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
        """Hidden states (B, N, C) in, (B, N, C) out; the residual is the block's business.

        Raises:
            ValueError: the layer is no plain cross-attention, or the number of negative rows does not fit.
        """
        if (
            encoder_hidden_states is None
            or attn.norm_cross
            or attn.group_norm is not None
            or attn.spatial_norm is not None
        ):
            raise ValueError(
                "NASA works on plain cross-attention (text embeddings, no extra norms); this layer has another form"
            )
        rows = len(hidden_states)
        if len(self.negative) not in (1, rows):
            raise ValueError(
                f"the negative prompt has {len(self.negative)} rows; expected 1 or {rows}, as the positive one"
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
        """What the layer answers, (B, N, C), for query (B, H, N, D), texts (B, T, E) and masks (B, 1, T)."""
        return self.combine(attend(attn, query, positive, mask), attend(attn, query, negative, negative_mask))

    @property
    def is_neutral(self) -> bool:
        """Whether it would change nothing: it is not attached then."""
        return self.alpha == 0

    def combine(self, z_pos: torch.Tensor, z_neg: torch.Tensor) -> torch.Tensor:
        """What the layer answers, (B, N, C), from Z+ and Z-; other ways than NASA's differ in this alone."""
        return steer_away(z_pos, z_neg, self.alpha)

    def _mask(self, query: torch.Tensor) -> torch.Tensor | None:
        """The negative's own padding as diffusers writes it: added to the scores, (B, 1, T)."""
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
    """The same for keys and values (B, T, C)."""
    key, value, tokens = _heads(key, attn.heads), _heads(value, attn.heads), key.shape[1]
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, tokens, len(query)).view(len(query), attn.heads, -1, tokens)
    z = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return z.transpose(1, 2).flatten(2)


def nasa(
    network: nn.Module, negative: TextEmbeddings, alpha: float, layers: Callable[[str], bool] = lambda name: True
) -> AbstractContextManager[nn.Module]:
    """Steer `network` away from `negative` while the context lasts; its own processors come back afterwards.

    Args:
        network: a UNet2DConditionModel or PixArtTransformer2DModel of diffusers.
        negative: the encoded negative prompt, of one row or B.
        alpha: strength; at 0 nothing is attached.
        layers: which cross-attention layers, by the name of their processor; all by default.

    Raises:
        ValueError: no cross-attention layer is chosen.
    """
    return processed(network, NasaProcessor(negative, alpha), layers)


@contextmanager
def processed(
    network: nn.Module, steered: NasaProcessor, layers: Callable[[str], bool] = lambda name: True
) -> Iterator[nn.Module]:
    """`steered`, unless it is neutral, in the cross-attention of `network` while the context lasts; see `nasa`."""
    if steered.is_neutral:
        yield network
        return
    before = dict(network.attn_processors)
    chosen = [name for name in before if name.endswith(CROSS_ATTENTION) and layers(name)]
    if not chosen:
        raise ValueError("no cross-attention layer is chosen; NASA would do nothing")
    # PixArt projects the text once, before its layers; the negative goes with it, while the weights are in place
    project = getattr(network, "caption_projection", None)
    hook = project.register_forward_hook(steered.project) if project is not None else None
    # set_attn_processor empties the dict it is given, hence the copies
    network.set_attn_processor({name: steered if name in chosen else processor for name, processor in before.items()})
    try:
        yield network
    finally:
        network.set_attn_processor(dict(before))
        if hook is not None:
            hook.remove()
