"""The text encoder of the shapes world: CLIP's, scaled down, random and frozen.

Trained at the UNet's learning rate it collapses ("left" and "right" get nearly the same embedding). Frozen, with the
token embeddings scaled up against the position embeddings, it keeps words apart.
"""

from __future__ import annotations

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from training.models.clip_tokenizer import MAX_TOKENS, clip_tokenizer

WIDTH = 64
EMBEDDING_SCALE = 4.0


def new_text_encoder(seed: int) -> CLIPTextModel:
    """A frozen text encoder; its weights are exact in fp16, so all shipped files have the same ones."""
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = CLIPTextModel(config)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name.endswith("token_embedding.weight"):
                weight.mul_(EMBEDDING_SCALE)
            weight.copy_(weight.half().float())
    return encoder.eval().requires_grad_(False)


class TextCache:
    """Embeddings (B, 77, WIDTH) of captions; there are few different captions, so each is encoded once."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        self._encoder = encoder
        self._tokenizer = clip_tokenizer()
        self._known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> torch.Tensor:
        new = sorted({caption for caption in captions if caption not in self._known})
        if new:
            ids = self._tokenizer(
                new, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
            ).input_ids
            self._known.update(zip(new, self._encoder(ids).last_hidden_state, strict=True))
        return torch.stack([self._known[caption] for caption in captions])
