"""Networks that NASA does not steer, with the reason for each."""

from __future__ import annotations

_NO_TEXT = "it takes no text prompt"
REASONS = {
    "ErnieImageModel": "its blocks hand no options to their attention, so that NASA cannot reach it",
    "HiDreamO1Transformer": "its text does not attend to the picture, as NASA's formula for joint attention needs it",
    "PidNet": "it decodes another model's picture, and its text has little to do with what the picture shows",
    "NaDiT": _NO_TEXT,
    "Hunyuan3Dv2": _NO_TEXT,
    "HunYuanDiTPlain": _NO_TEXT,
    "LatentSeqMMFlowModel": _NO_TEXT,
}
"""By the class of the network."""
