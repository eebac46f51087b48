"""What our loader knows about a model, carried along by the host's ModelPatcher and its clones."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ..checkpoint import Metadata

_KEY = "snoopi"


def set_metadata(patcher: ModelPatcher, metadata: Metadata) -> None:
    patcher.set_attachments(_KEY, metadata)


def get_metadata(patcher: ModelPatcher) -> Metadata | None:
    """The file's metadata; None for a model that another loader opened."""
    return patcher.get_attachment(_KEY)
