"""HunyuanVideo 1 and 1.5, HunyuanImage 2.1: Flux's blocks, and a text refiner that depends on the noise level."""

from __future__ import annotations

import dataclasses

from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock
from comfy.ldm.hunyuan_video.model import HunyuanVideo
from comfy.model_base import BaseModel

from ...conditioning.negative import Negative
from ..base import network_of
from .family import JointFamily
from .flux import DOUBLE, SINGLE


class HunyuanVideoFamily(JointFamily):
    name = "HunyuanVideo and HunyuanImage 2.1"
    networks = (HunyuanVideo,)
    groups = (
        ("double_blocks", "double", DoubleStreamBlock, DOUBLE),
        # With a first frame, the modulation changes by the index in the picture: nothing to check for the text.
        ("single_blocks", "single", SingleStreamBlock, dataclasses.replace(SINGLE, check=None)),
    )
    has_references = True
    target_first = False
    text_depends_on_time = True

    def text_width(self, network: HunyuanVideo) -> int:
        return network.txt_in.input_embedder.in_features

    def check(self, model: BaseModel, negative: Negative) -> None:
        super().check(model, negative)
        if network_of(model).vector_in is not None:
            self.check_setting(negative, "pooled_output", "pooled output")
