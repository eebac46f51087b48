"""Kandinsky 5, image and video.

Its text passes through blocks of its own that depend on the noise level and on the prompt's pooled embedding, and so is
prepared for each step.
"""

from __future__ import annotations

from comfy.ldm.kandinsky5.model import Kandinsky5

from .steered_layer import Projections
from .transformer import TransformerFamily


class Kandinsky5Family(TransformerFamily):
    name = "Kandinsky 5 (image, video)"
    networks = (Kandinsky5,)
    blocks_name = "visual_transformer_blocks"
    attention_name = "cross_attention"
    projections = Projections(query="to_query", keys_values=("to_key", "to_value"), output="out_layer")
    context_argument = "text_embed"
    required = ("pooled_output", "pooled CLIP embedding")
    text_settings = ("pooled_output",)
    text_depends_on_time = True

    def text_width(self, network: Kandinsky5) -> int:
        return network.text_embeddings.in_layer.in_features
