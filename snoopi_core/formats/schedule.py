"""The noise schedule that some single files carry, as `alphas_cumprod`."""

from __future__ import annotations

import logging

import torch

from .tensor_file import TensorFile

_KEY = "alphas_cumprod"
_TIMESTEPS = 1000  # of all the families whose files have it
_LEAST = 4.8973451890853435e-08  # alpha^2 that the host gives a last timestep of pure noise, whose sigma is infinite


def stored_sigmas(file: TensorFile) -> torch.Tensor | None:
    """sigma_t / alpha_t of each timestep, (T,) fp32; None where the file says nothing, or in fp8, which is too coarse.

    Raises:
        ValueError: no falling series of numbers from 1 to 0.
    """
    if _KEY not in file.names:
        return None
    bars = file.read([_KEY])[_KEY]
    if bars.shape != (_TIMESTEPS,) or not bars.is_floating_point():
        raise ValueError(f"its {_KEY} is {tuple(bars.shape)} of {bars.dtype}, expected {_TIMESTEPS} numbers")
    if bars.dtype.itemsize == 1:
        logging.info("%s: its %s is %s, too coarse to be used", file.path.name, _KEY, bars.dtype)
        return None
    bars = bars.double()
    if not ((bars >= 0) & (bars <= 1)).all() or (bars.diff() > 0).any() or bars[0] == bars[-1]:
        raise ValueError(f"its {_KEY} do not fall from 1 to 0")
    bars = bars.clamp(_LEAST, 1 - 1e-7)
    return ((1 - bars) / bars).sqrt().float()
