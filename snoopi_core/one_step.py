"""One-step sampling: from a network's output at one timestep to x0 (SNOOPI, arXiv 2412.02687, Section 3).

Dimensions: B batch rows, C latent channels, h x w latent height and width.
alpha_t and sigma_t are the variance-preserving pair of x_t = alpha_t x0 + sigma_t eps,
alpha_t^2 + sigma_t^2 = 1; conversions run in fp32 because 1/alpha_t magnifies rounding
(14.6 times at t = 999 of Stable Diffusion's schedule).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from .presets import Steps
from .text_input import parse_digits, shorten

_MAX_TIMESTEPS = 10**9  # for any model
SMALLEST_LIKELY_TIMESTEP = 20
"""A single timestep below this is probably meant as a number of steps: no model starts from so little noise."""
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def x0_from_output(
    output: torch.Tensor,
    x_t: torch.Tensor,
    alpha_t: torch.Tensor | float,
    sigma_t: torch.Tensor | float,
    prediction_type: str,
) -> torch.Tensor:
    """x0 from the network's output, for each kind of prediction.

    epsilon:       x0 = (x_t - sigma_t * eps) / alpha_t         (Section 3)
    v_prediction:  x0 = alpha_t * x_t - sigma_t * v             (Salimans & Ho 2022, Appendix D)
    sample:        x0 = output

    Args:
        output: the network's output, shape (B, C, h, w).
        x_t: the network's input, shape (B, C, h, w).
        alpha_t, sigma_t: floats, or tensors that broadcast to (B, C, h, w).
        prediction_type: one of `PREDICTION_TYPES`, diffusers' names.

    Returns:
        x0 in fp32 (fp64 for fp64 input), shape (B, C, h, w).

    Raises:
        ValueError: `prediction_type` is unknown.
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    output, x_t = output.to(dtype), x_t.to(dtype)
    if prediction_type == "epsilon":
        return (x_t - sigma_t * output) / alpha_t
    if prediction_type == "v_prediction":
        return alpha_t * x_t - sigma_t * output
    if prediction_type == "sample":
        return output
    raise ValueError(f"prediction type {prediction_type!r} is not known; available: {', '.join(PREDICTION_TYPES)}")


def eps_from_output(
    output: torch.Tensor,
    x_t: torch.Tensor,
    alpha_t: torch.Tensor | float,
    sigma_t: torch.Tensor | float,
    prediction_type: str,
) -> torch.Tensor:
    """eps from the network's output; arguments, dtype and errors as `x0_from_output`.

    epsilon:       eps = output
    v_prediction:  eps = sigma_t * x_t + alpha_t * v            (Salimans & Ho 2022, Appendix D)
    sample:        eps = (x_t - alpha_t * x0) / sigma_t
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    output, x_t = output.to(dtype), x_t.to(dtype)
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return sigma_t * x_t + alpha_t * output
    if prediction_type == "sample":
        return (x_t - alpha_t * output) / sigma_t
    raise ValueError(f"prediction type {prediction_type!r} is not known; available: {', '.join(PREDICTION_TYPES)}")


def euler_step(x: torch.Tensor, x0: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
    """Euler step of the probability-flow ODE from noise level sigma to sigma_next.

    x' = x + (sigma' - sigma) (x - x0) / sigma = x0 + (sigma' / sigma) (x - x0)      (Karras et al. 2022, Algorithm 1)

    Valid for x = x0 + sigma eps, and unchanged for a rectified flow's x = (1 - sigma) x0 + sigma eps.
    """
    return x0 + (sigma_next / sigma) * (x - x0)


class Step(NamedTuple):
    """A step of a sampler: its timestep t, and alpha_t and sigma_t there."""

    timestep: int
    alpha: float
    sigma: float


def next_input(
    x_t: torch.Tensor, x0: torch.Tensor, step: Step, later: Step, noise: torch.Tensor | None
) -> torch.Tensor:
    """The network's input x_t' at a later step t', from its input x_t and its x0 at t; all (B, C, h, w).

    consistency:  x_t' = alpha_t' x0 + sigma_t' z'                                  with fresh noise z'
    euler:        x_t' = alpha_t' x0 + sigma_t' (x_t - alpha_t x0) / sigma_t        without it: `noise` is None

    The second is `euler_step` in variance-preserving form, which is also DDIM's step (Song et al. 2021, Equation 12).
    """
    if noise is None:
        noise = (x_t - step.alpha * x0) / step.sigma
    return later.alpha * x0 + later.sigma * noise


def sample_steps(
    predict: Callable[[int, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    steps: Sequence[Step],
    noise: Callable[[int], torch.Tensor],
    *,
    kind: Steps = "consistency",
) -> torch.Tensor:
    """x0 (B, C, h, w) of the last step, as One-Step Sampler computes it.

    Args:
        predict: x0 from the number of a step and the network's input there.
        x: the network's input at the first step.
        steps: at least one.
        noise: fresh noise of unit variance for the step of this number, from 1 on; only used by consistency.
        kind: as explained in `presets`; not tcd.

    Raises:
        ValueError: `kind` is not supported here.
    """
    if len(steps) > 1 and kind not in ("consistency", "euler"):
        raise ValueError(f"steps of kind {kind!r} are not supported here; supported: consistency, euler")
    x0 = predict(0, x)
    for number in range(1, len(steps)):
        fresh = noise(number) if kind == "consistency" else None
        x = next_input(x, x0, steps[number - 1], steps[number], fresh)
        x0 = predict(number, x)
    return x0


def tcd_step(
    x: torch.Tensor,
    x0: torch.Tensor,
    sigma: torch.Tensor,
    sigma_s: torch.Tensor,
    sigma_next: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Strategic stochastic sampling (Zheng et al. 2024, TCD, Algorithm 4) with gamma = 1: down to s = 0, then up again.

    x_s = x0 + sigma_s eps with eps = (x - x0) / sigma;      x' = x_s + sqrt(sigma'^2 - sigma_s^2) z

    Args:
        x, x0: (B, C, h, w), x = x0 + sigma eps.
        sigma_s: noise level of timestep 0.
        sigma_next, noise: of the next step; None for the last step.

    Returns:
        x' in the form of x; for the last step, x_s in variance-preserving form, ready to be decoded.
    """
    x_s = x0 + (sigma_s / sigma) * (x - x0)
    if sigma_next is None or noise is None:
        return x_s / torch.sqrt(1.0 + sigma_s**2)
    return x_s + torch.sqrt(sigma_next**2 - sigma_s**2) * noise


def is_auto(text: str) -> bool:
    """Whether a person left the choice of timesteps to the node."""
    return text.replace(",", " ").strip().lower() == "auto"


def parse_timesteps(text: str, *, auto: tuple[int, ...], num_train_timesteps: int | None = 1000) -> tuple[int, ...]:
    """Parse timesteps that a person typed, such as "999" or "999, 749, 499, 249".

    Args:
        text: `auto`, or strictly decreasing integers separated by commas or spaces.
        auto: the value of `auto`.
        num_train_timesteps: timesteps lie in [0, num_train_timesteps - 1]; None if the model is not known yet.

    Raises:
        ValueError: not integers, out of range, or not strictly decreasing; says what was got and what is expected.
    """
    bounds = "" if num_train_timesteps is None else f" from {num_train_timesteps - 1} down to 0"
    expected = f'expected "auto" or strictly decreasing timesteps{bounds}, for example "999" or "999, 749, 499, 249"'
    shown = shorten(text)
    words = text.replace(",", " ").split()
    if is_auto(text):
        return auto
    if not words:
        raise ValueError(f"timesteps is empty; {expected}")
    steps = []
    for word in words:
        if not (word.isascii() and word.isdigit()):
            raise ValueError(f"timesteps {shown!r}: {shorten(word)!r} is not a whole number; {expected}")
        steps.append(parse_digits(word))
    if max(steps) >= (_MAX_TIMESTEPS if num_train_timesteps is None else num_train_timesteps):
        word = shorten(words[steps.index(max(steps))])
        raise ValueError(f"timesteps {shown!r}: {word} is above the model's last timestep; {expected}")
    if any(later >= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(f"timesteps {shown!r} are not strictly decreasing; {expected}")
    return tuple(steps)
