"""Full state dicts of trained weights and optimisers, on the CPU, for plain, DDP and FSDP networks.

torch's functions gather and distribute them. Every process must call these functions; only the first one gets the
gathered state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from snoopi_core.formats.layouts import StateDict

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_QUANTISED = "__bnb_optimizer_quant_state__"  # bitsandbytes' name
_ADAPTER = ".default"  # peft's name for the only adapter, which its own files leave out


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """tensors: "weight's name.key" -> moment or count. settings: param groups and other values, ready for JSON."""

    tensors: StateDict
    settings: dict[str, Any]


def trained_state(network: nn.Module) -> StateDict:
    """Trained weights by the network's own names; an adapter's weights have the names of peft's files."""
    names = _trained_names(network)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state = get_model_state_dict(network, options=options)
    if state and not names.keys() <= state.keys():
        missing = sorted(names.keys() - state.keys())
        raise ValueError(f"{len(missing)} trained weights are missing in the gathered state, first {missing[0]}")
    return {names[name]: weight.detach() for name, weight in state.items() if name in names}


def load_trained_state(network: nn.Module, state: StateDict) -> None:
    """Load what `trained_state` returned; every process must pass the full state.

    Raises:
        ValueError: the weights are not the trained weights of this network.
    """
    names = _trained_names(network)
    if missing := set(names.values()) ^ set(state):
        raise ValueError(f"{len(missing)} weights are missing or unexpected, first {min(missing)}")
    options = StateDictOptions(full_state_dict=True, strict=False)  # frozen weights are not in the state
    set_model_state_dict(network, {name: state[saved] for name, saved in names.items()}, options=options)


def optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Moments by the names of the weights, so that a run can resume with another number of processes."""
    if not _bare(optimizer).state:  # torch would do a step to create the state
        return OptimizerState(tensors={}, settings={})
    whole = get_optimizer_state_dict(network, _bare(optimizer), options=_WHOLE)
    tensors: StateDict = {}
    others: dict[str, Any] = {}
    for name, values in whole.get("state", {}).items():
        for key, value in _flat(values):
            if isinstance(value, torch.Tensor):
                tensors[f"{name}.{key}"] = value.clone()  # 8-bit moments share tables, which safetensors refuses
            else:
                others[f"{name}.{key}"] = value
    return OptimizerState(tensors=tensors, settings={"param_groups": whole.get("param_groups", []), "others": others})


def load_optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer, saved: OptimizerState) -> None:
    """Load what `optimizer_state` returned; every process must pass the full state."""
    if not saved.tensors:  # saved before the first update
        return
    nested = getattr(_bare(optimizer), "non_castable_tensor_keys", ())
    state: dict[str, dict[str, Any]] = {}
    for name, value in [*saved.tensors.items(), *saved.settings["others"].items()]:
        weight, _, key = name.rpartition(".")
        values = state.setdefault(weight, {})
        (values.setdefault(_QUANTISED, {}) if key in nested else values)[key] = value
    whole = {"state": state, "param_groups": saved.settings["param_groups"]}
    set_optimizer_state_dict(network, _bare(optimizer), whole, options=_WHOLE)
    # fused updates need moments in the memory layout of their weights, such as channels last
    for weight, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                values[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of one weight's state; bitsandbytes nests values that must not be cast in a dict."""
    for key, value in values.items():
        yield from value.items() if key == _QUANTISED else [(key, value)]


def _trained_names(network: nn.Module) -> dict[str, str]:
    """Names of torch's functions -> names in files."""
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    names = [name.removeprefix("module.").replace("_checkpoint_wrapped_module.", "") for name in names]
    return {name: name.replace(f"{_ADAPTER}.", ".") for name in names}


def _bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)  # without accelerate's wrapper
