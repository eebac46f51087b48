"""A text encoder for a small world: CLIP's, scaled down, with CLIP's vocabulary, and frozen while a teacher learns.

Trained at the UNet's learning rate it collapses ("left" and "right" get nearly the same embedding). Frozen, with the
token embeddings scaled up against the position embeddings, even a random one keeps words apart.
"""

from __future__ import annotations

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from training.models.clip_tokenizer import MAX_TOKENS, clip_tokenizer

WIDTH = 64
EMBEDDING_SCALE = 4.0


def new_text_encoder(seed: int, *, width: int = WIDTH, layers: int = 2) -> CLIPTextModel:
    """A frozen, random text encoder; its weights are exact in fp16, so all shipped files have the same ones."""
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        projection_dim=width,
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


def token_ids(captions: list[str]) -> torch.Tensor:
    """CLIP's token ids (B, 77) of captions, padded with the end token."""
    kwargs = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True, "return_tensors": "pt"}
    return clip_tokenizer()(captions, **kwargs).input_ids


class TextCache:
    """Embeddings (B, 77, WIDTH) of captions; there are few different captions, so each is encoded once."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        self._encoder = encoder
        self._known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> torch.Tensor:
        new = sorted({caption for caption in captions if caption not in self._known})
        if new:
            self._known.update(zip(new, self._encoder(token_ids(new)).last_hidden_state, strict=True))
        return torch.stack([self._known[caption] for caption in captions])
