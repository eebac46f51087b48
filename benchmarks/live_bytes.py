"""Counts the memory of the tensors that a step makes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def most_live_bytes(step: Callable[[], Any]) -> int:
    """Bytes of the tensors that `step()` makes, when most of them exist; without what there was before, as weights are,
    and without what kernels use inside."""
    gc.collect()
    with _LiveBytes() as made:
        step()
    return made.most


class _LiveBytes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = {storage._cdata for storage in _storages((args, kwargs))}
        out = function(*args, **kwargs)
        for storage in _storages(out):
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known and key not in given:
                self._known.add(key)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, key, size)
        return out

    def _gone(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.now -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    tensors = [each for each in tree_iter(tree) if isinstance(each, torch.Tensor) and each.device.type != "meta"]
    return [each.untyped_storage() for each in tensors if each.layout == torch.strided]
