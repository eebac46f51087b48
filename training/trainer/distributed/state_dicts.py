"""State dicts of trained weights and optimisers, for plain, DDP and FSDP networks.

torch's functions gather and distribute them. Every process must call these functions. With `whole`, only the first one
gets the gathered state, on the CPU. Without it, every process gets what `own_part` says, and nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed import get_rank
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, Shard

from snoopi_core.formats.layouts import StateDict

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_QUANTISED = "__bnb_optimizer_quant_state__"  # bitsandbytes' name
_ADAPTER = ".default"  # peft's name for the only adapter, which its own files leave out


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """tensors: "weight's name.key" -> moment or count. settings: param groups and other values, ready for JSON."""

    tensors: StateDict
    settings: dict[str, Any]


def own_part(value: torch.Tensor) -> torch.Tensor | None:
    """What this process writes of a tensor: its own rows, which may be none, if FSDP has divided the rows among all
    processes. Otherwise the first process writes it whole, and the others None."""
    if isinstance(value, DTensor):
        if value.placements == (Shard(0),):
            return value.to_local()
        value = value.full_tensor()
    return value if get_rank() == 0 else None


def trained_state(network: nn.Module, *, whole: bool = True) -> StateDict:
    """Trained weights by the network's own names; an adapter's weights have the names of peft's files."""
    names = _trained_names(network)
    options = StateDictOptions(full_state_dict=whole, cpu_offload=whole, ignore_frozen_params=True)
    state = get_model_state_dict(network, options=options)
    if state and not names.keys() <= state.keys():
        missing = sorted(names.keys() - state.keys())
        raise ValueError(f"{len(missing)} trained weights are missing in the gathered state, first {missing[0]}")
    parts = {name: weight if whole else own_part(weight) for name, weight in state.items() if name in names}
    return {names[name]: weight.detach() for name, weight in parts.items() if weight is not None}


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


def optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer, *, whole: bool = True) -> OptimizerState:
    """Moments by the names of the weights, so that a run can resume with another number of processes."""
    if not _bare(optimizer).state:  # torch would do a step to create the state
        return OptimizerState(tensors={}, settings={})
    options = _WHOLE if whole else StateDictOptions()
    state = get_optimizer_state_dict(network, _bare(optimizer), options=options)
    tensors: StateDict = {}
    others: dict[str, Any] = {}
    for name, values in state.get("state", {}).items():
        for key, value in _flat(values):
            if isinstance(value, torch.Tensor):
                if (part := value if whole else own_part(value)) is not None:
                    # copied, since 8-bit moments share tables, which safetensors refuses
                    tensors[f"{name}.{key}"] = part.to("cpu", copy=True)
            else:
                others[f"{name}.{key}"] = value
    return OptimizerState(tensors=tensors, settings={"param_groups": state.get("param_groups", []), "others": others})


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
