"""Metadata of a loaded model, stored as an attachment of the host's ModelPatcher, which its clones share."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...formats.checkpoint import BaseMetadata

_KEY = "snoopi"


def set_metadata(patcher: ModelPatcher, metadata: BaseMetadata) -> None:
    patcher.set_attachments(_KEY, metadata)


def get_metadata(patcher: ModelPatcher) -> BaseMetadata | None:
    """The metadata of the model's file, or of the LoRA on it; None for a model without SNOOPI metadata."""
    return patcher.get_attachment(_KEY)
