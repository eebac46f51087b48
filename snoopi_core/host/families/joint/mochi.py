"""Mochi: the image comes first; the attention sees the text's first tokens only, as many as the prompt has."""

from __future__ import annotations

from typing import Any

from comfy.ldm.genmo.joint_model.asymm_models_joint import AsymmDiTJoint, AsymmetricJointBlock

from .block import Arguments, JointBlock
from .family import JointFamily


def _cropped(network: Any, arguments: Arguments, prompt: int) -> int:
    return arguments["crop_y"]


class MochiFamily(JointFamily):
    name = "Mochi"
    networks = (AsymmDiTJoint,)
    groups = (
        ("blocks", "block", AsymmetricJointBlock, JointBlock(
            text="y", image="x", conditioning=("c",), image_positions=(("rope_cos", 0), ("rope_sin", 0)),
            text_length=_cropped, own=("crop_y",), image_first=True,
        )),
    )  # fmt: skip
    required = ("attention_mask", "attention mask")

    def text_width(self, network: AsymmDiTJoint) -> int:
        return network.t5_yproj.in_features
