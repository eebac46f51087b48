"""The noise schedule that some single files contain, as `alphas_cumprod`."""

from __future__ import annotations

import logging

import torch

from .tensor_file import TensorFile

_KEY = "alphas_cumprod"
_TIMESTEPS = 1000  # in all families whose files contain it
_MIN_ALPHA_SQUARED = 4.8973451890853435e-08  # the host's alpha^2 for a last timestep of pure noise, instead of 0


def stored_sigmas(file: TensorFile) -> torch.Tensor | None:
    """sigma_t / alpha_t of each timestep, (T,) fp32; None if the file has no schedule, or one in fp8 (too coarse).

    Raises:
        ValueError: not a decreasing series of numbers between 1 and 0.
    """
    if _KEY not in file.names:
        return None
    alphas = file.read([_KEY])[_KEY]
    if alphas.shape != (_TIMESTEPS,) or not alphas.is_floating_point():
        raise ValueError(f"its {_KEY} is {tuple(alphas.shape)} of {alphas.dtype}, expected {_TIMESTEPS} numbers")
    if alphas.dtype.itemsize == 1:
        logging.info("%s: its %s is ignored, %s is too coarse", file.path.name, _KEY, alphas.dtype)
        return None
    alphas = alphas.double()
    if not ((alphas >= 0) & (alphas <= 1)).all() or (alphas.diff() > 0).any() or alphas[0] == alphas[-1]:
        raise ValueError(f"its {_KEY} do not decrease, expected decreasing numbers between 1 and 0")
    alphas = alphas.clamp(_MIN_ALPHA_SQUARED, 1 - 1e-7)
    return ((1 - alphas) / alphas).sqrt().float()
