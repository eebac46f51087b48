"""Stable Diffusion XL's two text encoders as one module.

Dimensions: B prompts, S tokens, E text width (of both together), P pooled width.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection


class TextEncoderPair(nn.Module):
    """CLIP-L and OpenCLIP bigG. Their states are joined; the pooled embedding is the second's projected one."""

    def __init__(self, first: CLIPTextModel, second: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.first, self.second = first, second

    @property
    def config(self) -> SimpleNamespace:
        """hidden_size (E) and projection_dim (P)."""
        one, two = self.first.config, self.second.config
        return SimpleNamespace(hidden_size=one.hidden_size + two.hidden_size, projection_dim=two.projection_dim)

    @property
    def device(self) -> torch.device:
        return self.first.device

    def forward(self, first_ids: torch.Tensor, second_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States (B, S, E) and pooled (B, P) of token ids (B, S) by each encoder's tokenizer, which pad differently.

        States are the outputs of the last layer but one, without the final norm.
        """
        one, two = (
            encoder(ids.to(self.device), output_hidden_states=True)
            for encoder, ids in ((self.first, first_ids), (self.second, second_ids))
        )
        return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds
