"""Check that weights match a network: every key and shape, before anything of the network is allocated.

The host's loading is not strict: missing weights stay uninitialised, unexpected ones are ignored, and both are only
logged. Here they are errors, except for known keys that no network needs (formats/single_file_extras.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch

from ...formats.tensor_file import StateDict

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")

# Raised by the host for arguments that it does not support.
BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def expected_weights(part: str, build: Callable[[], torch.nn.Module], *, set_default_device: bool = True) -> StateDict:
    """The state dict of a network built on the meta device.

    Args:
        set_default_device: make meta the default device, for tensors that the network creates without a device.

    Raises:
        ValueError: the host cannot build the network.
    """
    try:
        if not set_default_device:
            return build().state_dict()
        with torch.device("meta"):
            return build().state_dict()
    except BUILD_ERRORS as error:
        raise ValueError(f"ComfyUI cannot build this {part} config ({type(error).__name__}: {error})") from error


def check_weights(
    part: str,
    weights: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    *,
    optional: Iterable[str] = (),
    unexpected: Iterable[str] = (),
) -> None:
    """Compare keys, shapes and dtypes.

    Args:
        optional: keys that may be missing.
        unexpected: other keys in the file that do not belong to the network.

    Raises:
        ValueError: they differ; lists the first five differences and counts the others.
    """
    may_miss = frozenset(optional)
    problems = [f"missing {key}" for key in expected if key not in weights and key not in may_miss]
    problems += [f"not expected {key}" for key in weights if key not in expected]
    problems += [f"not expected {key}" for key in unexpected]
    for key, weight in weights.items():
        if key in expected and weight.shape != expected[key].shape:
            problems.append(f"{key} has shape {tuple(weight.shape)}, expected {tuple(expected[key].shape)}")
        elif key in expected and not weight.is_floating_point():
            problems.append(f"{key} has dtype {weight.dtype}, expected floating point")
    if problems:
        raise ValueError(f"{part} weights and config do not match: {summarize_problems(problems)}")


def summarize_problems(problems: list[str]) -> str:
    """The first five problems, shortened, and the number of others."""
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problem if len(problem) <= 300 else problem[:300] + "..." for problem in problems[:5]) + more


def check_layers(part: str, layers: Iterable[int], weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse impossible layer counts early: even on the meta device, building a million layers takes long.

    Raises:
        ValueError: more layers than weights.
    """
    if (total := sum(layers)) > len(weights):
        raise ValueError(f"{part} weights and config do not match: {total} layers, {len(weights)} tensors")


def check_numbers(part: str, names: Iterable[str], *, most: int = 200) -> None:
    """Refuse impossible block numbers early: the host counts blocks by searching all names once per block.

    Raises:
        ValueError: a block number above `most`.
    """
    for name in names:
        for number in _NUMBER.findall(name):
            if len(number) > 6 or int(number) > most:
                raise ValueError(f"{part} has a block of number {number[:20]} in {name[:200]}, expected at most {most}")
