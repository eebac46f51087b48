"""Whether weights are those of a network: every key and shape, before anything of the network is allocated.

The host's loading is not strict: a weight that is missing stays as it was in memory, one too many is left out, and
both are only logged. Here they are errors, except for a list of keys that published files carry and no network needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch

StateDict = dict[str, torch.Tensor]
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")

# What the host raises at arguments that it cannot use.
CANNOT_BUILD = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

# Noise schedules that the training code of Stable Diffusion 1, 2 and XL saved beside the weights. The host keeps its
# own; `alphas_cumprod`, from which the others follow, is compared with it (see foreign.py).
_SCHEDULE_KEYS = frozenset(
    {
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "betas",
        "denoiser.sigmas",
        "log_one_minus_alphas_cumprod",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "posterior_variance",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
    }
)
_HARMLESS = (
    # A second copy of the network, averaged over training (v1-5-pruned), and its counters.
    re.compile(r"model_ema\..+"),
    # 0 to 76, which transformers up to version 4.30 saved as a weight.
    re.compile(r"(cond_stage_model|conditioner\.embedders\.0)\.transformer\.text_model\.embeddings\.position_ids"),
    re.compile(r"cond_stage_model\.transformer\.embeddings\.position_ids"),
    # Of use in CLIP's own training only.
    re.compile(r"cond_stage_model\.(model\.)?logit_scale|conditioner\.embedders\.[01](\.model)?\.logit_scale"),
)


def is_harmless(name: str) -> bool:
    """Whether published files carry this key and nothing is lost without it."""
    return name in _SCHEDULE_KEYS or any(pattern.fullmatch(name) for pattern in _HARMLESS)


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
