"""Load the weights of a network that must have the same form as another one."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from snoopi_core.formats.layouts import StateDict
from training.models.backbone import Backbone
from training.models.loading.find import open_model
from training.models.loading.model_files import errors_naming

# Settings of a network's config that change neither its weights nor what it computes with them.
_NO_EFFECT = ("sample_size", "upcast_attention", "dropout")


def load_network(path: str, like: Backbone) -> StateDict:
    """The weights of another model's network, fp32 under diffusers' names, for a network such as `like`'s.

    Raises:
        FileNotFoundError, ValueError: see `open_model`; or the networks differ, and the message says how.
    """
    return load_matching_weights(path, like.network, like.family.name, like.prediction_type, "the teacher's")


def load_matching_weights(path: str, network: nn.Module, family: str, prediction_type: str, owner: str) -> StateDict:
    """As `load_network`, for any network; `owner` says which it is in messages, such as "the teacher's"."""
    files = open_model(path)
    theirs = {"family": files.family, "prediction_type": files.prediction_type}
    differences = _differences(theirs, {"family": family, "prediction_type": prediction_type}, owner)
    if files.family == family:
        with errors_naming(path):
            other = files.read_network()
        differences += _differences(_config(other), _config(network), owner)
        differences += _differences(_shapes(other), _shapes(network), owner)
    if differences:
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ValueError(f"{path} does not fit: {'; '.join(differences[:5])}{more}")
    return other.state_dict()


def _config(network: nn.Module) -> dict[str, Any]:
    """The settings that decide what a diffusers network computes; a list of equal values becomes that value."""
    config = json.loads(network.to_json_string())
    plain = {key: value for key, value in config.items() if not key.startswith("_") and key not in _NO_EFFECT}
    return {
        key: value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value
        for key, value in plain.items()
    }


def _shapes(network: nn.Module) -> dict[str, Any]:
    return {key: tuple(weight.shape) for key, weight in network.state_dict().items()}


def _differences(theirs: dict[str, Any], ours: dict[str, Any], owner: str) -> list[str]:
    return [
        f"{key} is {theirs.get(key, 'absent')}, {owner} {ours.get(key, 'absent')}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key, "absent") != ours.get(key, "absent")
    ]
