"""Keys of published single files that no network needs."""

from __future__ import annotations

import re

# Noise schedules that the training code of Stable Diffusion 1, 2 and XL saved beside the weights. Only `alphas_cumprod`
# is read (schedule.py): the others follow from it.
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
