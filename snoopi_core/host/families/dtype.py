"""Which dtype the host computes a model in."""

from __future__ import annotations

import torch
from comfy.model_base import BaseModel


def inference_dtype(model: BaseModel) -> torch.dtype:
    """The dtype of activations: weights may be kept in another one and cast layer by layer."""
    return model.manual_cast_dtype or model.get_dtype()
