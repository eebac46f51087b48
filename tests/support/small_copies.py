"""Lets the host load a small copy of a published file as if it had the published sizes.

It is a custom node in the test servers (live_pack.install_small_copies), and is imported where small copies are made.

The host recognises networks and text encoders by sizes, and has most other sizes in its code. A small copy says in the
tensor `DECLARATION` (JSON) how it differs; sizes are changed accordingly, and nothing else:

    published   shapes that the host's detection sees in place of the file's
    network     sizes that replace those of the network that the host has detected
    encoder     sizes of a text encoder, as the host's own `model_options`
    tables      entries of the host's tables of sizes
    classes     arguments of the host's classes that are numbers in its code

Files without the tensor are loaded as ever.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_detection
import comfy.sd
import torch

DECLARATION = "small_copy"
Weights = dict[str, torch.Tensor]


def declared(weights: Weights) -> dict[str, Any]:
    """What the file declares. It is removed, since it is no weight of a model."""
    found = weights.pop(DECLARATION, None)
    return {} if found is None else json.loads(found.numpy().tobytes())


def place(path: str) -> tuple[Any, str]:
    """Module and name of "module:name"."""
    module, _, name = path.partition(":")
    return importlib.import_module(module), name


def resize(declaration: dict[str, Any]) -> None:
    for path, changes in declaration.get("tables", {}).items():
        module, name = place(path)
        getattr(module, name).update(changes)
    for path, sizes in declaration.get("classes", {}).items():
        module, name = place(path)
        current = getattr(module, name)
        setattr(module, name, _smaller(getattr(current, "published", current), sizes))


@contextmanager
def resized(declaration: dict[str, Any]) -> Iterator[None]:
    """Within the block, the host's tables and classes have the declared sizes."""
    places = [place(path) for kind in ("tables", "classes") for path in declaration.get(kind, {})]
    before = [copy.copy(getattr(*each)) for each in places]
    resize(declaration)
    try:
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            if isinstance(value, dict):
                getattr(module, name).update(value)
            else:
                setattr(module, name, value)


def _smaller(published: type, sizes: dict[str, int]) -> Any:
    def make(*_: Any, **given: Any) -> Any:
        return published(**{**given, **sizes})

    make.published = published
    return make


def _as_published(weights: Weights, declaration: dict[str, Any], prefix: str = "") -> Weights:
    shapes = declaration.get("published", {})
    return {**weights, **{prefix + key: torch.empty(shape, device="meta") for key, shape in shapes.items()}}


def patch_host() -> None:
    network_of = comfy.model_detection.model_config_from_unet
    encoder_of, kind_of = comfy.sd.load_text_encoder_state_dicts, comfy.sd.detect_te_model
    current: dict[str, Any] = {}

    def small_network(weights: Weights, prefix: str, *rest: Any, **more: Any) -> Any:
        declaration = declared(weights)
        resize(declaration)
        config = network_of(_as_published(weights, declaration, prefix), prefix, *rest, **more)
        if config is not None:
            config.unet_config.update(declaration.get("network", {}))
        return config

    def small_encoder(files: list[Weights], *rest: Any, model_options: Any = None, **more: Any) -> Any:
        current.clear()
        for declaration in map(declared, files):
            resize(declaration)
            current.update(declaration)
        options = {**(model_options or {}), **current.get("encoder", {})}
        return encoder_of(files, *rest, model_options=options, **more)

    comfy.model_detection.model_config_from_unet = small_network
    comfy.sd.load_text_encoder_state_dicts = small_encoder
    comfy.sd.detect_te_model = lambda weights: kind_of(_as_published(weights, current))
