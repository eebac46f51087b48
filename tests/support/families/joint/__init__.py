"""Small models of joint attention, with references that are written out in fp64."""

from . import flux, krea2, lumina, minimax_h3, qwen_image, sd3
from .case import JOINT_CASES

__all__ = ["JOINT_CASES", "flux", "krea2", "lumina", "minimax_h3", "qwen_image", "sd3"]
