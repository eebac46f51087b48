"""What published single files contain besides weights: a noise schedule, and keys that no network needs."""

from __future__ import annotations

import logging
import re

import torch

from .tensor_file import TensorFile

_KEY = "alphas_cumprod"
_TIMESTEPS = 1000  # in all families whose files contain it
_MIN_ALPHA_SQUARED = 4.8973451890853435e-08  # the host's alpha^2 for a last timestep of pure noise, instead of 0

# Noise schedules that the training code of Stable Diffusion 1, 2 and XL saved beside the weights. Only `alphas_cumprod`
# is read, because the others follow from it.
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
    # Used only when training CLIP.
    re.compile(r"cond_stage_model\.(model\.)?logit_scale|conditioner\.embedders\.[01](\.model)?\.logit_scale"),
)


def is_harmless(name: str) -> bool:
    """Whether this is a known key of published files that can be ignored."""
    return name in _SCHEDULE_KEYS or any(pattern.fullmatch(name) for pattern in _HARMLESS)


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
