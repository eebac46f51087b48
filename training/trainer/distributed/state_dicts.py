"""States of what is trained, whole and on the CPU, however the networks are spread over processes.

Networks may be plain, in DDP, or sharded by FSDP; torch's own functions know how to gather and to spread them. Every
process must call these functions; the gathered state reaches the first process alone.
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
    """tensors: "weight's name.key" -> moment or count; settings: param groups, and whatever is no tensor, as JSON."""

    tensors: StateDict
    settings: dict[str, Any]


def trained_state(network: nn.Module) -> StateDict:
    """The weights that are trained, under the network's own names, an adapter's under those of peft's files."""
    names = _trained_names(network)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state = get_model_state_dict(network, options=options)
    if state and not names.keys() <= state.keys():
        missing = sorted(names.keys() - state.keys())
        raise ValueError(f"{len(missing)} trained weights are not in the gathered state, first {missing[0]}")
    return {names[name]: weight.detach() for name, weight in state.items() if name in names}


def load_trained_state(network: nn.Module, state: StateDict) -> None:
    """The way back; every process gives the whole state.

    Raises:
        ValueError: the weights are not those that this network trains.
    """
    names = _trained_names(network)
    if missing := set(names.values()) ^ set(state):
        raise ValueError(f"{len(missing)} weights do not fit what is trained, first {min(missing)}")
    options = StateDictOptions(full_state_dict=True, strict=False)  # what is frozen is not in it
    set_model_state_dict(network, {name: state[saved] for name, saved in names.items()}, options=options)


def optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Moments by the names of the weights, so that another number of processes can go on with them."""
    if not _bare(optimizer).state:  # torch would make a step, to have something to save
        return OptimizerState(tensors={}, settings={})
    whole = get_optimizer_state_dict(network, _bare(optimizer), options=_WHOLE)
    tensors: StateDict = {}
    others: dict[str, Any] = {}
    for name, values in whole.get("state", {}).items():
        for key, value in _flat(values):
            if isinstance(value, torch.Tensor):
                tensors[f"{name}.{key}"] = value.clone()  # 8-bit moments share their tables, which no file may
            else:
                others[f"{name}.{key}"] = value
    return OptimizerState(tensors=tensors, settings={"param_groups": whole.get("param_groups", []), "others": others})


def load_optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer, saved: OptimizerState) -> None:
    """The way back; every process gives the whole state."""
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
    # fused updates walk through memory, so a moment must lie there as its weight does: channels last, for instance
    for weight, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                values[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of one weight; bitsandbytes keeps what must not be cast in a dict of its own."""
    for key, value in values.items():
        yield from value.items() if key == _QUANTISED else [(key, value)]


def _trained_names(network: nn.Module) -> dict[str, str]:
    """Names as torch's functions give them -> names in files."""
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    names = [name.removeprefix("module.").replace("_checkpoint_wrapped_module.", "") for name in names]
    return {name: name.replace(f"{_ADAPTER}.", ".") for name in names}


def _bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper is not what the weights' names lie in
