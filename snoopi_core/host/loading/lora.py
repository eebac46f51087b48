"""Apply a LoRA to its base model: read it, match every key, and pass it to the host as patches."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from types import SimpleNamespace

import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase

from ...formats.lora import LoraMetadata, find_lora_metadata
from ...formats.tensor_file import StateDict, open_tensor_file, readable
from .attachment import set_metadata
from .check_weights import check_numbers, summarize_problems
from .model_sampling import model_sampling, sampling_settings

_PEFT_KEY = "lora_adapter_metadata"  # in the header, from diffusers 0.34 on: peft's settings
_DOWN = ("lora_A.weight", "lora_A.default.weight", "lora.down.weight", "lora_down.weight")
_MOST_SCALES = 100
_TEXT = re.compile(r"(lora_te\d?_|text_encoders?[._\d])")  # names of kohya, diffusers and the host
_LOAD_LORA = "Set lora_name to none, and put ComfyUI's Load LoRA node after PG-SB Loader"
_ALPHA, _NOT_PLAIN = "lora_alpha", ("alpha_pattern", "use_rslora", "use_dora")
Target = str | tuple
"""The host's name for a weight, or (name, (dimension, start, length)) for a part of one."""


def apply_lora(
    path: Path, model: ModelPatcher, clip: comfy.sd.CLIP | None
) -> tuple[ModelPatcher, comfy.sd.CLIP | None]:
    """Clones of model and text encoder with the LoRA at full strength, and with its recipe if it has one.

    Raises:
        ValueError: keys that match no weight, shapes that do not fit, or another kind of adapter; lists the first five
            and counts the others. CheckpointError if the file itself cannot be used.
    """
    file = open_tensor_file(path, "LoRA")
    metadata = find_lora_metadata(file)
    check_numbers("LoRA", file.names)
    weights = file.read()
    _check_plain(weights)
    targets = _targets(model, clip)
    try:
        weights = _with_alphas(comfy.lora_convert.convert_lora(weights), file.metadata, targets)
        patches = comfy.lora.load_lora(weights, targets, log_missing=False)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"a part is missing or has the wrong type ({type(error).__name__}: {error})") from error
    _check_all_used(weights, targets, patches, has_clip=clip is not None)
    _check_kind(patches)
    _check_fit(patches, model, clip)

    model = model.clone()
    used = set(model.add_patches(patches, 1.0))
    if clip is not None:
        clip = clip.clone()
        used |= set(clip.add_patches(patches, 1.0))
    if lost := [str(key) for key in patches if key not in used]:
        raise ValueError(f"ComfyUI rejected {len(lost)} of its patches: {summarize_problems(lost)}")
    if metadata is not None:
        _apply_metadata(model, metadata)
    logging.info("%s", readable(f"{path.name}: {len(patches)} weights changed{_describe_recipe(metadata)}"))
    return model, clip


def _check_plain(weights: StateDict) -> None:
    """Check values that the host would convert to numbers without checking.

    Raises:
        ValueError: an alpha that is not a finite number, or a LoRA that reshapes weights.
    """
    if odd := [key for key in weights if key.endswith(".reshape_weight")]:
        raise ValueError(f"it reshapes {len(odd)} weight(s), first {odd[0]}. {_LOAD_LORA}")
    for key, weight in weights.items():
        if key.endswith(".alpha") and not (weight.numel() == 1 and torch.isfinite(weight.float()).all()):
            raise ValueError(f"{key} is {tuple(weight.shape)} of {weight.dtype}, expected one finite number")


def _targets(model: ModelPatcher, clip: comfy.sd.CLIP | None) -> dict[str, Target]:
    """LoRA module names -> weights: the host's table, with the names of diffusers and peft that it lacks."""
    targets = comfy.lora.model_lora_keys_unet(model.model, {})
    config = model.model.model_config.unet_config
    if isinstance(model.model, comfy.model_base.PixArt):
        for key, target in comfy.utils.pixart_to_diffusers(config, output_prefix="diffusion_model.").items():
            if key.endswith(".weight"):
                module = key.removesuffix(".weight")
                for name in (module, f"lora_transformer_{module.replace('.', '_')}"):
                    targets.setdefault(name, target)
    else:
        for key, target in comfy.utils.unet_to_diffusers(config).items():
            if key.endswith(".weight"):
                module = key.removesuffix(".weight")
                for prefix in ("", "unet.", "base_model.model.", "unet.base_model.model."):
                    targets.setdefault(prefix + module, f"diffusion_model.{target}")
    if clip is not None:
        targets = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, targets)
    return targets


def _with_alphas(weights: StateDict, header: dict[str, str], targets: dict[str, Target]) -> StateDict:
    """Add each pair's `alpha` if only the header contains it.

    Raises:
        ValueError: peft settings that are not plain LoRA.
    """
    if any(key.endswith(".alpha") for key in weights) or _PEFT_KEY not in header:
        return weights
    try:
        settings = json.loads(header[_PEFT_KEY])
        scales = {key.removesuffix(_ALPHA): float(value) for key, value in settings.items() if key.endswith(_ALPHA)}
        if len(scales) > _MOST_SCALES or not all(map(math.isfinite, scales.values())):
            raise ValueError(f"{len(scales)} values of {_ALPHA}, expected up to {_MOST_SCALES} numbers")
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"its {_PEFT_KEY} cannot be read ({error})") from error
    odd = [key for key, value in settings.items() if value and key.endswith(_NOT_PLAIN)]
    if odd:
        raise ValueError(
            f"its {_PEFT_KEY} sets {', '.join(odd)[:200]}, which ComfyUI cannot read: merge it into its base model "
            "with peft or diffusers"
        )
    alphas = {}
    for name in targets:
        if any(f"{name}.{end}" in weights for end in _DOWN):
            for prefix, alpha in scales.items():
                if name.startswith(prefix):
                    alphas[f"{name}.alpha"] = torch.tensor(alpha)
    return {**weights, **alphas}


def _check_all_used(weights: StateDict, targets: dict[str, Target], patches: dict, *, has_clip: bool) -> None:
    used: set[str] = set()
    for patch in patches.values():
        if isinstance(patch, WeightAdapterBase):
            used |= set(patch.loaded_keys)
    for name, target in targets.items():
        if target in patches:
            used |= {f"{name}.{end}" for end in ("alpha", "dora_scale", "diff", "diff_b", "set_weight")}
    if unmatched := sorted(key for key in weights if key not in used):
        raise ValueError(_why_unused(unmatched, len(weights), has_clip))
    if not patches:
        raise ValueError("it contains no weights")


def _why_unused(unmatched: list[str], count: int, has_clip: bool) -> str:
    """Why keys match no weight, and what to do."""
    bundled = [key for key in unmatched if key.startswith("bundle_emb.")]
    magnitudes = [key for key in unmatched if "lora_magnitude_vector" in key]
    text = [] if has_clip else [key for key in unmatched if _TEXT.match(key) and key not in magnitudes]
    if rest := [key for key in unmatched if key not in {*bundled, *magnitudes, *text}]:
        return (
            f"{len(rest)} of its {count} keys match no weight of this model or its text encoder: "
            f"{summarize_problems(rest)}. A LoRA fits the base model that it was trained on"
        )
    if magnitudes:
        return (
            f"it is a DoRA as peft saves it, with {len(magnitudes)} lora_magnitude_vector, first {magnitudes[0]}. "
            "ComfyUI cannot read these: convert the file to DoRA with dora_scale, or merge it into its base model"
        )
    reasons, advice = [], ""
    if text:
        reasons.append(
            f"{len(text)} of its {count} keys change the text encoder, which this checkpoint does not contain: "
            f"{summarize_problems(text)}"
        )
    if bundled:
        reasons.append(
            f"{len(bundled)} of its {count} keys are embeddings for prompts (textual inversion), which are no part of "
            f"a LoRA: {summarize_problems(bundled)}"
        )
        advice = "; for its embeddings, copy the file into models/embeddings and write embedding:NAME in the prompt"
    clip = "with the CLIP of your CLIP loader" if text else "with PG-SB Loader's MODEL and CLIP"
    return f"{'. '.join(reasons)}. {_LOAD_LORA}, {clip}{advice}"


def _check_kind(patches: dict) -> None:
    """Refuse adapters that are not plain LoRAs; the host applies them, but their formulas are not checked here."""
    kinds = {target: kind for target, patch in patches.items() if (kind := _other_kind(patch))}
    if kinds:
        names = sorted(set(kinds.values()))
        raise ValueError(
            f"it is not a plain LoRA: {len(kinds)} of its {len(patches)} parts are {', '.join(names)}, first for "
            f"{next(iter(kinds))}. {_LOAD_LORA}"
        )


def _other_kind(patch: object) -> str:
    """Such as "LoHa"; "" for a plain LoRA or a change of weights."""
    if isinstance(patch, LoRAAdapter):
        _, _, _, mid, dora, reshape = patch.weights
        kinds = {"LoCon with a core (lora_mid)": mid, "DoRA": dora, "LoRA that reshapes weights": reshape}
        return next((kind for kind, part in kinds.items() if part is not None), "")
    if isinstance(patch, tuple) and patch[0] in ("diff", "set"):
        return ""
    return type(patch).__name__.removesuffix("Adapter")


def _check_fit(patches: dict, model: ModelPatcher, clip: comfy.sd.CLIP | None) -> None:
    """Compare shapes now: the host would notice only while sampling, and skip the weight."""
    shapes = {key: weight.shape for key, weight in model.model_state_dict().items()}
    if clip is not None:
        shapes |= {key: weight.shape for key, weight in clip.patcher.model_state_dict().items()}
    problems = []
    for target, patch in patches.items():
        name, part = (target, None) if isinstance(target, str) else target[:2]
        if name not in shapes:
            problems.append(f"no weight {name}")
            continue
        shape = list(shapes[name])
        if part is not None:
            shape[part[0]] = part[2]
        problems += [f"{name}: {problem}" for problem in _misfits(patch, torch.Size(shape))]
    if problems:
        raise ValueError(
            f"{len(problems)} of its weights do not fit this model, so it was trained on another base model: "
            f"{summarize_problems(problems)}"
        )


def _misfits(patch: LoRAAdapter | tuple, shape: torch.Size) -> list[str]:
    if isinstance(patch, LoRAAdapter):
        up, down = patch.weights[:2]
        if not (up.is_floating_point() and down.is_floating_point()):
            return [f"dtypes {up.dtype} and {down.dtype}, expected floating point"]
        rank, inside = down.shape[:1].numel(), shape[1:].numel()
        got = [tuple(each.flatten(1).shape) for each in (up, down) if each.ndim >= 2]
        if got != [(shape[0], rank), (rank, inside)]:
            return [f"up {tuple(up.shape)} and down {tuple(down.shape)}, expected ({shape[0]}, r) and (r, {inside})"]
        return []
    change = patch[1][0]
    return [] if change.shape == shape else [f"change of shape {tuple(change.shape)}, expected {tuple(shape)}"]


def _apply_metadata(model: ModelPatcher, metadata: LoraMetadata) -> None:
    """Use the student's prediction type, schedule and recipe instead of its base model's.

    Raises:
        ValueError: a LoRA for another family of networks.
    """
    family = "pixart" if isinstance(model.model, comfy.model_base.PixArt) else "unet"
    if metadata.family != family:
        raise ValueError(f"it was trained on a {metadata.family} network, this model is a {family} network")
    config = SimpleNamespace(sampling_settings=sampling_settings(metadata.schedule))
    model.add_object_patch("model_sampling", model_sampling(metadata, config))
    set_metadata(model, metadata)


def _describe_recipe(metadata: LoraMetadata | None) -> str:
    if metadata is None:
        return "; the LoRA contains no recipe, so the base model's is used"
    steps = "no recipe" if metadata.recipe is None else f"timesteps {', '.join(map(str, metadata.recipe.timesteps))}"
    alpha = metadata.recommended_alpha
    advice = "" if alpha is None else f", alpha {alpha:g}{'' if alpha else ' (no negative prompt)'}"
    return f" by {' '.join(metadata.title.split())!r}, {steps}{advice}"
