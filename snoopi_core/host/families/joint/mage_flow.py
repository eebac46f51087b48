"""Mage-Flow: Qwen-Image's blocks in another network."""

from __future__ import annotations

from comfy.ldm.mage_flow.model import MageFlowTransformer2DModel
from comfy.ldm.qwen_image.model import QwenImageTransformerBlock

from .family import JointFamily
from .qwen_image import BLOCK


class MageFlowFamily(JointFamily):
    name = "Mage-Flow"
    networks = (MageFlowTransformer2DModel,)
    groups = (("transformer_blocks", "block", QwenImageTransformerBlock, BLOCK),)
    has_references = True

    def text_width(self, network: MageFlowTransformer2DModel) -> int:
        return network.txt_in.in_features
