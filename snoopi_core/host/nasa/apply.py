"""Attach NASA to a host model: one set of wrappers for any number of NASA Apply nodes."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...guidance.blocks import parse_blocks
from ...guidance.methods import METHOD_NAMES, NASA, Method
from ..conditioning.mask import check_mask
from ..conditioning.negative import Conditioning, Negative, read_negative
from ..conditioning.window import Window
from ..families import Call, Context, Family, LayerObserver, Options, Term, family_of, has_values
from ..front_end import running_node, show_text
from .alpha import describe_manual_alpha, recommended_alpha
from .call_rows import CallRows
from .log import RunLog, describe_steering, describe_strength
from .request import Steering
from .rows import HOST_CALL_KEY, LABELS_KEY, HostCall, host_call, read_layout
from .sampling_run import OBSERVER_KEY, POSITIVE_KEY, RUN_KEY, PositiveChunks, Run, mark_positive, track_run

WRAPPER_KEY = "snoopi_nasa"


def apply_nasa(
    patcher: ModelPatcher,
    negative: Conditioning,
    *,
    alpha: float,
    window: Window,
    blocks: str,
    mask: torch.Tensor | None = None,
    alpha_source: str = "",
    method: Method = NASA,
) -> ModelPatcher:
    """A clone of `patcher` that steers away from `negative`; `patcher` itself if nothing would change.

    If the model is already steered, the new negative acts in addition to the others. The result is logged and
    shown on the node.

    Args:
        mask: where in the picture, (h, w) or (n, h, w) in [0, 1], n images of a batch or frames of a video; resized to
            each attention's grid.
        alpha_source: where alpha comes from; "" if a person set it.

    Raises:
        ValueError: an unsupported model or method, a negative of another model, unknown blocks, an invalid mask, or an
            alpha that is not finite or too large.
    """
    steering = read_steering(patcher, negative, alpha=alpha, window=window, blocks=blocks, mask=mask, method=method)
    if reason := steering.inactive_reason():
        source = f", {alpha_source}" if alpha == 0.0 and alpha_source else ""
        logging.warning("NASA Apply does nothing: %s%s", reason, source)
        return patcher
    text = describe_strength(method, alpha, alpha_source or describe_manual_alpha(patcher, alpha, method))
    steering = dataclasses.replace(steering, text=text)
    show_text(text)
    advice = alpha_source or recommended_alpha(patcher, method)
    logging.info("NASA Apply: %s%s", describe_steering(steering, patcher.model), advice and f"; {advice}")
    return steer(patcher, steering)


def read_steering(
    patcher: ModelPatcher,
    negative: Conditioning,
    *,
    alpha: float,
    window: Window,
    blocks: str,
    mask: torch.Tensor | None = None,
    method: Method = NASA,
) -> Steering:
    """Check the arguments of `apply_nasa` and collect them; raises its errors."""
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}, expected a number; 0 changes nothing")
    family = family_of(patcher.model)
    if alpha > method.highest:
        raise ValueError(f"alpha is {alpha:g}, expected at most {method.highest:g} for {method.name}")
    if why := family.why_not(patcher.model, method.name):
        others = [name for name in METHOD_NAMES if not family.why_not(patcher.model, name)]
        raise ValueError(
            f"method {method.name} cannot act in this model ({family.name}): {why}. Available: {', '.join(others)}"
        )
    negatives = read_negative(negative)
    for each in negatives:
        family.check(patcher.model, each)
    chosen = parse_blocks(blocks, family.blocks(patcher.model))
    if mask is not None:
        family.check_mask(chosen)
    return Steering(
        negatives=negatives,
        method=method,
        alpha=alpha,
        window=window,
        blocks=chosen,
        mask=None if mask is None else check_mask(mask),
        is_ignored=method.needs_response
        and all(each.is_zero for each in negatives)
        and family.ignores_zeros(patcher.model, chosen),
        node=running_node(),
    )


def steer(patcher: ModelPatcher, steering: Steering) -> ModelPatcher:
    """A clone of `patcher` with one more negative; `patcher` itself if nothing would change."""
    if steering.inactive_reason():
        return patcher
    before = patcher.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY)
    steerings = (*(each for wrapper in before for each in wrapper.steerings), steering)
    steered = patcher.clone()
    log = RunLog(steerings)
    for kind, wrapper in (
        (WrappersMP.SAMPLER_SAMPLE, partial(track_run, log.run_started, log.run_ended, steering.node)),
        (WrappersMP.CALC_COND_BATCH, mark_positive),
        (WrappersMP.APPLY_MODEL, NASAWrapper(family_of(patcher.model), steerings)),
    ):
        steered.remove_wrappers_with_key(kind, WRAPPER_KEY)
        steered.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)
    return steered


class NASAWrapper:
    """Wraps the host's `BaseModel.apply_model`."""

    def __init__(self, family: Family, steerings: tuple[Steering, ...]) -> None:
        self.family, self.steerings = family, steerings
        self.attachment = family.attach()
        negatives = (negative for steering in steerings for negative in steering.negatives)
        self._numbers = {negative: number for number, negative in enumerate(negatives)}

    def __call__(
        self,
        executor: WrapperExecutor,
        x: torch.Tensor,
        sigma: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **conditions: Any,
    ) -> torch.Tensor:
        def proceed(options: Options, **more: Any) -> torch.Tensor:
            return executor(x, sigma, c_concat, c_crossattn, control, options, **conditions, **more)

        options = dict(transformer_options or {})
        run: Run | None = options.pop(RUN_KEY, None)
        observer: LayerObserver | None = options.pop(OBSERVER_KEY, None)
        marked: PositiveChunks | None = options.pop(POSITIVE_KEY, None)
        chunks = marked or PositiveChunks()
        seen: HostCall | None = options.pop(HOST_CALL_KEY, None)
        host = seen or host_call(x, c_crossattn, options, is_seen=marked is None)
        layout = read_layout(host, x, c_crossattn, conditions.pop(LABELS_KEY, None), chunks.numbers)
        shape = _picture_shape(x, conditions)
        if shape != x.shape:
            chunks = dataclasses.replace(chunks, size=tuple(shape[2:]))
        rows = CallRows(host=host, layout=layout, chunks=chunks, options=options, whole=run and run.shape)
        if not any(rows.positive):
            return proceed(options)
        if run is not None:
            run.calls += 1
        model: BaseModel = executor.class_obj
        terms = tuple(self._terms(model, x, sigma, options, rows, run))
        if not terms:
            return proceed(options)
        _check_guides(self.steerings, conditions)
        if run is not None:
            run.acted += 1
        has_several = any(term.context.tokens.shape[0] > 1 for term in terms)
        call = Call(
            positive=rows.positive,
            terms=terms,
            shape=shape,
            images=rows.images() if has_several else None,
            prompt=0 if c_crossattn is None else c_crossattn.shape[1],
            observer=observer,
            said=set() if run is None else run.said,
        )
        return self.attachment(model, options, call, proceed)

    def _terms(
        self,
        model: BaseModel,
        x: torch.Tensor,
        sigma: torch.Tensor,
        options: Options,
        rows: CallRows,
        run: Run | None,
    ) -> list[Term]:
        is_cached = run is not None and run.steps > 1 and _weights_are_constant(model)
        cached = run.cached if is_cached else _without_cache
        is_kept = is_cached and not self.family.text_depends_on_time
        cached_text = cached if is_kept else _without_cache
        size = x.shape[1:] if self.family.text_depends_on_size else None

        level = cache(lambda: float(sigma[0]))  # waits for the GPU

        def is_active(window: Window) -> bool:
            return window.covers_all or window.is_active(level(), model.model_sampling)

        def prepare(negative: Negative, steering: Steering) -> tuple[Context, dict]:
            # With the current weights: LoRAs, hooks and low-VRAM casts have already been applied.
            context = self.family.context(model, negative, x, sigma, options)
            layers = self.family.layers(model)
            chosen = {key: layer for key, layer in layers.items() if layer.block in steering.blocks}
            if negative.is_zero and steering.method.needs_response and run is not None:
                values = any(has_values(layer.keys_values(context)) for layer in chosen.values())
                run.unanswered.update(() if values else (negative,))
            return context, {key: layer.keys_values(context) if is_kept else None for key, layer in chosen.items()}

        def mask_of(steering: Steering) -> torch.Tensor:
            mask = cached((steering, "mask", x.device), lambda: steering.mask.to(x.device, non_blocking=True))
            return rows.mask(mask)

        terms = []
        for steering in self.steerings:
            active = steering.active_negatives(is_active)
            mask = mask_of(steering) if active and steering.mask is not None else None
            if run is not None:
                run.used.update(negative for negative, _ in active)
                if mask is not None:
                    run.saw_mask(steering, mask)
            for negative, portion in active:
                strength = cached((steering, x.device), partial(torch.full, (), steering.alpha, device=x.device))
                context, keys_values = cached_text(
                    (negative, model.diffusion_model, x.device, size), partial(prepare, negative, steering)
                )
                term = Term(
                    number=self._numbers[negative],
                    method=steering.method,
                    strength=strength,
                    portion=portion,
                    context=context,
                    keys_values=keys_values,
                    mask=mask,
                )
                terms.append(term)
        return terms


def _picture_shape(x: torch.Tensor, conditions: Mapping[str, Any]) -> torch.Size:
    """Shape of the picture's or video's latent; the host packs it and that of the sound into one tensor."""
    shapes = conditions.get("latent_shapes") or ()
    return torch.Size((x.shape[0], *shapes[0][1:])) if len(shapes) > 1 else x.shape


def _check_guides(steerings: Sequence[Steering], conditions: Mapping[str, Any]) -> None:
    """Check that masks for single frames meet these frames: LTX's guides are frames behind those of the video.

    Raises:
        ValueError: a mask has several frames, and there are guides.
    """
    places = conditions.get("keyframe_idxs")
    several = [each.mask for each in steerings if each.mask is not None and len(each.mask) > 1]
    if several and places is not None and places.shape[2] > 0:
        raise ValueError(
            f"mask has {len(several[0])} pictures for the frames of the video, but guides have been added behind them, "
            "and would take their part. Connect a mask of one picture, or remove the guides (LTXVAddGuide)"
        )


def _without_cache(key: object, make: Callable) -> Any:
    return make()


def _weights_are_constant(model: BaseModel) -> bool:
    """Whether all calls of a run use the same weights; hooks may change them between calls."""
    patcher = model.current_patcher
    return patcher is not None and not patcher.hook_patches and patcher.forced_hooks is None
