"""Samples the model as a teacher, with many steps and classifier-free guidance, for comparison with its student."""

from __future__ import annotations

from typing import Any

import diffusers

from training.models.backbone import Backbone
from training.models.loading import scheduler_config
from training.models.sampling import ddim

# of diffusers; they draw no noise while sampling, so that an image depends only on its seed
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
    """The scheduler of a diffusers folder, or DDIM for a single file, which names none.

    Raises:
        ValueError: the scheduler is not supported or draws noise.
    """
    config = scheduler_config(path)
    if config is None:
        return ddim(model)
    name = str(config.get("_class_name"))
    if name not in SCHEDULERS or str(config.get("algorithm_type", "")).startswith("sde"):
        raise ValueError(
            f"{path} is sampled by {name}{' as ' + config['algorithm_type'] if name in SCHEDULERS else ''}, which "
            f"is not supported for a teacher; supported, without random noise: {', '.join(SCHEDULERS)}. "
            "Name one of them in scheduler/scheduler_config.json"
        )
    return getattr(diffusers, name).from_config(config)
