"""The model as a teacher: many steps with classifier-free guidance, to stand beside its student."""

from __future__ import annotations

from typing import Any

import diffusers

from training.models.backbone import Backbone
from training.models.loading import scheduler_config
from training.models.sampling import ddim

# of diffusers; these draw no noise while they sample, so that an image's noise is its seed's alone
SCHEDULERS = (
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
)


def open_scheduler(path: str, model: Backbone) -> Any:
    """The scheduler in a diffusers folder; DDIM for a file, which names none.

    Raises:
        ValueError: it is another one, or draws noise; says which are supported.
    """
    config = scheduler_config(path)
    if config is None:
        return ddim(model)
    name = str(config.get("_class_name"))
    if name not in SCHEDULERS or str(config.get("algorithm_type", "")).startswith("sde"):
        raise ValueError(
            f"{path} is sampled by {name}{' as ' + config['algorithm_type'] if name in SCHEDULERS else ''}, which "
            f"is not supported for a teacher; supported, without noise of their own: {', '.join(SCHEDULERS)}. "
            "Name one in scheduler/scheduler_config.json"
        )
    return getattr(diffusers, name).from_config(config)
