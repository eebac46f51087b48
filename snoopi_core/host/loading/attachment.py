"""What our loader knows about a model, carried along by the host's ModelPatcher and its clones."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...formats.checkpoint import BaseMetadata

_KEY = "snoopi"


def set_metadata(patcher: ModelPatcher, metadata: BaseMetadata) -> None:
    patcher.set_attachments(_KEY, metadata)


def get_metadata(patcher: ModelPatcher) -> BaseMetadata | None:
    """What the file says, or the LoRA on it; None for a model of other makers."""
    return patcher.get_attachment(_KEY)
