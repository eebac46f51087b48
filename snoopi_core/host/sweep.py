"""Pictures at several strengths of NASA or other methods, from the same noise (Figure 5 of SNOOPI, arXiv 2412.02687).

Each strength is sampled and decoded separately, with the latent's whole batch. So pictures are bit for bit those of
NASA Apply and the sampler at that strength, and GPU memory does not grow with their number. All are sampled before the
first is decoded, so network and VAE swap on the GPU only once.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import comfy.model_management
import comfy.samplers
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ..guidance.methods import NASA, Method
from ..guidance.sweet_spot import SweetSpot, choose
from ..pictures.contact_sheet import contact_sheet
from ..presets import AUTO
from .conditioning.negative import Conditioning
from .conditioning.window import Window
from .front_end import show_text
from .nasa.alpha import known_alpha
from .nasa.apply import read_steering, steer
from .nasa.request import ALL_ZEROS
from .one_step import Callback, Latent, SamplingPlan, plan_one_step, sample_plan

_NODE_NAME = "NASA Scale Sweep"


def sweep(
    patcher: ModelPatcher,
    positive: list,
    negative: Conditioning,
    latent: Latent,
    vae: comfy.sd.VAE | None,
    *,
    strengths: Sequence[tuple[Method, float]],
    seed: int,
    timesteps: str = AUTO,
    preset: str = AUTO,
    sampler: comfy.samplers.Sampler | None = None,
    sigmas: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, SweetSpot]:
    """A labelled page of all pictures, (1, H, W, 3); the pictures, (strengths x batch, h, w, 3); and the strength to
    start with, which is marked on the page if there is one.

    Args:
        strengths: methods and their strengths, one picture (or batch) each.
        timesteps, preset: as in One-Step Sampler.
        sampler, sigmas: of the host's custom sampling, instead of these two; both or neither.

    Raises:
        ValueError: as in NASA Apply and One-Step Sampler; or only one of sampler and sigmas; or no VAE.
    """
    if vae is None:
        raise ValueError("vae is empty: the file contains no VAE. Connect a Load VAE node")
    # Checked once, before anything is sampled, so that mistakes are reported immediately.
    steerings = [
        read_steering(patcher, negative, alpha=alpha, window=Window(), blocks="all", method=method)
        for method, alpha in strengths
    ]
    if idle := dict.fromkeys(each.method.name for each in steerings if each.is_ignored):
        logging.warning("%s: %s does nothing, so its pictures are the same: %s", _NODE_NAME, ", ".join(idle), ALL_ZEROS)
    plan = _make_plan(patcher, timesteps, preset, sampler, sigmas)
    spot = choose(
        strengths,
        known_alpha(patcher, preset if sampler is None else AUTO),
        does_nothing=ALL_ZEROS if NASA.name in idle else "",
    )
    # Without latent previews: the front end would keep showing the last one instead of the node's page.
    progress = comfy.utils.ProgressBar(plan.steps * len(steerings))
    samples = []
    for number, steering in enumerate(steerings):
        comfy.model_management.throw_exception_if_processing_interrupted()
        steered = steer(plan.patcher, steering)
        one = dataclasses.replace(plan, patcher=steered)
        sampled = sample_plan(one, positive, latent, seed=seed, callback=_part(progress, number * plan.steps))
        samples.append(sampled["samples"])
    pictures = _decode(vae, samples)
    several = len({method.name for method, _ in strengths}) > 1
    labels = [f"{method.name if several or method is not NASA else 'alpha'} {alpha:g}" for method, alpha in strengths]
    show_text(spot.reason)
    note = "" if spot.place is None else spot.reason
    return contact_sheet(pictures, labels, marked=spot.place, note=note), pictures.flatten(0, 1), spot


def _make_plan(
    patcher: ModelPatcher,
    timesteps: str,
    preset: str,
    sampler: comfy.samplers.Sampler | None,
    sigmas: torch.Tensor | None,
) -> SamplingPlan:
    if sampler is None and sigmas is None:
        return plan_one_step(patcher, timesteps=timesteps, preset=preset, node_name=_NODE_NAME)
    if sampler is None or sigmas is None:
        missing, there = ("sampler", "sigmas") if sampler is None else ("sigmas", "sampler")
        raise ValueError(f"{there} is connected but {missing} is not; connect both, or neither for a one-step model")
    if len(sigmas) < 2:
        raise ValueError(f"sigmas has {len(sigmas)} value(s), expected 2 or more: one step needs two")
    return SamplingPlan(patcher=patcher, sigmas=sigmas, sampler=lambda noise_of: sampler, node_name=_NODE_NAME)


def _part(progress: comfy.utils.ProgressBar, done: int) -> Callback:
    """A callback that advances `progress` during one sampling run, after `done` steps of earlier runs."""
    return lambda step, x0, x, steps: progress.update_absolute(done + step + 1)


def _decode(vae: comfy.sd.VAE, samples: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pictures (strengths, B, h, w, 3); frames of videos are separate pictures, as in the host's VAE Decode."""
    pictures = None
    for number, each in enumerate(samples):
        comfy.model_management.throw_exception_if_processing_interrupted()
        # Of a latent with sound, the video comes first.
        images = vae.decode(each.unbind()[0] if each.is_nested else each)
        images = images.reshape(-1, *images.shape[-3:])
        if pictures is None:  # allocated once: concatenating at the end would need twice the memory
            pictures = images.new_empty(len(samples), *images.shape)
        pictures[number] = images
    return pictures
