"""Whether weights are those of a network: every key and shape, before anything of the network is allocated.

The host's loading is not strict: a weight that is missing stays as it was in memory, one too many is left out, and
both are only logged. Here they are errors, except for what published files carry and no network needs (published.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch

StateDict = dict[str, torch.Tensor]
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")

# What the host raises at arguments that it cannot use.
CANNOT_BUILD = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def expected_weights(part: str, build: Callable[[], torch.nn.Module], *, everywhere: bool = True) -> StateDict:
    """The state dict of a network that is built on the meta device.

    Args:
        everywhere: also for tensors whose device the network's code does not choose.

    Raises:
        ValueError: the host cannot build it.
    """
    try:
        if not everywhere:
            return build().state_dict()
        with torch.device("meta"):
            return build().state_dict()
    except CANNOT_BUILD as error:
        raise ValueError(f"the host cannot build a {part} of this config ({type(error).__name__}: {error})") from error


def check_weights(
    part: str,
    weights: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    *,
    spare: Iterable[str] = (),
    left_over: Iterable[str] = (),
) -> None:
    """Compare keys, shapes and kinds of number.

    Args:
        spare: keys that may be missing.
        left_over: keys of the file that found no place at all.

    Raises:
        ValueError: they differ; all differences are counted, the first five named.
    """
    may_miss = frozenset(spare)
    problems = [f"missing {key}" for key in expected if key not in weights and key not in may_miss]
    problems += [f"not expected {key}" for key in weights if key not in expected]
    problems += [f"not expected {key}" for key in left_over]
    for key, weight in weights.items():
        if key in expected and weight.shape != expected[key].shape:
            problems.append(f"{key} has shape {tuple(weight.shape)}, expected {tuple(expected[key].shape)}")
        elif key in expected and not weight.is_floating_point():
            problems.append(f"{key} has dtype {weight.dtype}, expected floating point")
    if problems:
        raise ValueError(f"{part} weights and config do not match: {listed(problems)}")


def listed(problems: list[str]) -> str:
    """The first five, shortened, and how many more there are."""
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problem if len(problem) <= 300 else problem[:300] + "..." for problem in problems[:5]) + more


def check_layers(part: str, layers: Iterable[int], weights: Mapping[str, torch.Tensor]) -> None:
    """Even without memory, a million layers take their time.

    Raises:
        ValueError: more layers than weights.
    """
    if (total := sum(layers)) > len(weights):
        raise ValueError(f"{part} weights and config do not match: {total} layers, {len(weights)} tensors")


def check_numbers(part: str, names: Iterable[str], *, most: int = 200) -> None:
    """The host counts blocks by looking through all names once for each of them.

    Raises:
        ValueError: a block with a number past any network's.
    """
    for name in names:
        for number in _NUMBER.findall(name):
            if len(number) > 6 or int(number) > most:
                raise ValueError(f"{part} has a block of number {number[:20]} in {name[:200]}, expected at most {most}")
