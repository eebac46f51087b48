"""Write students and teachers as files in the checkpoint format that PG-SB Loader opens."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import nn
from torch.nn import functional

from snoopi_core.formats.architecture import text_arguments, unet_arguments, vae_arguments
from snoopi_core.formats.architecture_pixart import pixart_arguments
from snoopi_core.formats.checkpoint import Checkpoint, Metadata, Provenance, write_checkpoint
from snoopi_core.formats.layouts import StateDict, text_encoder_rename, to_single_file, vae_rename
from snoopi_core.formats.lora import LoraMetadata, adapters_from_peft, write_lora
from snoopi_core.presets import ARCHITECTURES, PRESETS
from training.config import Recipe, package_versions
from training.distill.noise_levels import NoiseLevels
from training.distill.rng import generator
from training.models.backbone import Backbone, fingerprint
from training.models.loading import load_teacher
from training.models.sampling import few_step_x0
from training.prompts import open_prompts
from training.trainer.run_folder.checkpoint import (
    NOISE,
    RunState,
    best_checkpoint,
    check_intact,
    checkpoints,
    load_state,
    newest_intact,
)

_STOCK_SCALES = (0.18215, 0.13025)  # of Stable Diffusion 1 and 2, and of XL
_PACKAGES = ("torch", "diffusers", "peft", "transformers", "accelerate", "safetensors")


def provenance(recipe_sha256: str = "", step: int = 0, seed: int | None = None, notes: str = "") -> Provenance:
    """Recipe, step and library versions that made the weights."""
    versions = package_versions(*_PACKAGES)
    return Provenance(recipe_sha256=recipe_sha256, step=step, seed=seed, versions=versions, notes=notes)


def check_exportable(backbone: Backbone) -> None:
    """Check, before hours of training, that ComfyUI can build the networks of a file made from `backbone`.

    Raises:
        ValueError: it cannot; the message gives the reason.
    """
    network, vae = backbone.network, backbone.vae
    (pixart_arguments if backbone.family.name == "pixart" else unet_arguments)(network.config)
    vae_arguments(vae.config)
    if backbone.family.name == "unet" and backbone.text_encoder is not None:
        text_arguments(backbone.text_encoder.config.to_dict())
    if (latents := vae.config.latent_channels) != backbone.latent_channels:
        raise ValueError(f"the VAE has {latents} latent channels, the network takes {backbone.latent_channels}")
    for module, to_single in (
        (network, lambda weights: backbone.family.to_single_file(weights, network.config)),
        (vae, lambda weights: to_single_file(weights, vae_rename(vae.config))),
    ):
        to_single({name: torch.empty_like(weight, device="meta") for name, weight in module.state_dict().items()})


def export_backbone(path: Path, backbone: Backbone, weights: StateDict | None = None, **metadata: Any) -> Path:
    """Write `backbone` as a checkpoint file. T5 and SDXL's text encoders are never included.

    Args:
        weights: of the network, under diffusers' names, in place of the backbone's own.
        metadata: title, role and other fields of `Metadata` that do not follow from the model.

    Raises:
        ValueError: the networks cannot be built by ComfyUI; or (CheckpointError) see `write_checkpoint`.
    """
    check_exportable(backbone)
    network, vae = backbone.network, backbone.vae
    text_encoder = backbone.text_encoder if backbone.family.name == "unet" else None
    text_weights = None
    if text_encoder is not None:
        text_weights = {text_encoder_rename(key): weight for key, weight in text_encoder.state_dict().items()}
        # the full config: a library's defaults may change
        metadata |= {"text_encoder": _public(text_encoder.config.to_dict())}
        metadata |= {"pad_token_id": backbone.tokenizer.pad_token_id}
    checkpoint = Checkpoint(
        metadata=Metadata(
            family=backbone.family.file_family,
            prediction_type=backbone.prediction_type,
            unet=_config(network),
            vae=_config(vae),
            latent_scale=vae.config.scaling_factor,
            schedule=backbone.schedule,
            **metadata,
        ),
        unet=backbone.family.to_single_file(weights or network.state_dict(), network.config),
        vae=to_single_file(vae.state_dict(), vae_rename(vae.config)),
        text_encoder=text_weights,
    )
    return write_checkpoint(path, checkpoint)


def export_student(
    path: Path, backbone: Backbone, weights: StateDict, recipe: Recipe, step: int, *, teacher_fingerprint: str = ""
) -> Path:
    """Write a student that was trained with `recipe`.

    Args:
        backbone: its teacher, as loaded.
        teacher_fingerprint: of its network; a LoRA's file names it.
        weights: the trained weights: all of the network, or only the adapters if recipe.student.train is "lora".
    """
    levels = NoiseLevels.from_schedule(backbone.alphas_cumprod(), recipe)
    about = {
        "title": recipe.output.title,
        "recipe": levels.sampling_recipe(recipe),
        "recommended_alpha": recipe.output.recommended_alpha,
        "provenance": provenance(recipe.sha256(), step, recipe.seed, backbone.notes),
    }
    if recipe.student.train == "lora":
        metadata = LoraMetadata(
            family=backbone.family.file_family,
            prediction_type=backbone.prediction_type,
            schedule=backbone.schedule,
            base=_public_path(recipe.student.init or recipe.teacher.path),
            base_loras=() if recipe.student.init else tuple(map(_public_path, recipe.teacher.loras)),
            base_sha256="" if recipe.student.init else teacher_fingerprint,
            **about,
        )
        return write_lora(path, metadata, adapters_from_peft(weights), alpha=recipe.student.lora_scaling)
    colours = _preview_colours(backbone, weights, recipe, levels)
    return export_backbone(path, backbone, weights, role="student", latent_rgb_factors=colours, **about)


def with_load_lora(metadata: LoraMetadata) -> str:
    """How a student's LoRA is sampled behind ComfyUI's own Load LoRA, which drops the recipe in its file."""
    recipe, powers = metadata.recipe, DDPMScheduler(**metadata.schedule.model_dump()).alphas_cumprod
    if recipe is None:
        return "it has no sampling recipe"
    first = recipe.timesteps[0]
    usual = recipe.steps == "consistency" and abs(powers[first].item() ** 0.5 - recipe.alpha_T) <= 1e-4 * recipe.alpha_T
    if not usual:
        return (
            "ComfyUI's own Load LoRA drops its recipe, which has a noise level or steps that cannot be typed: open it "
            "with PG-SB Loader only"
        )
    named = {preset.timesteps: preset.name for preset in PRESETS if preset.architectures == ARCHITECTURES}
    if recipe.timesteps in named:
        how = f'choose preset "{named[recipe.timesteps]}" in One-Step Sampler'
    else:
        timesteps = ", ".join(map(str, recipe.timesteps))
        how = f'type it into One-Step Sampler, timesteps "{timesteps}", preset auto'
    return f"ComfyUI's own Load LoRA works too, at strength 1, but drops the recipe: {how}"


def _public_path(path: str) -> str:
    """A model's path without this machine's folders: a hub id and a relative path stay, an absolute path is cut."""
    return Path(path).name if Path(path).expanduser().is_absolute() else path


def _config(module: nn.Module) -> dict[str, Any]:
    """A diffusers config as plain JSON."""
    return _public(json.loads(module.to_json_string()))


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Drop private entries, which hold paths of this machine."""
    return {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}


@torch.no_grad()
def _preview_colours(
    backbone: Backbone, weights: StateDict, recipe: Recipe, levels: NoiseLevels
) -> tuple[tuple[float, ...], ...] | None:
    """Linear map from a latent pixel to RGB in [-1, 1], (C, 3), fitted on 64 images. ComfyUI's previews use it.

    None where ComfyUI has such a map already, and where there is no text encoder to make images with.
    """
    if any(abs(backbone.vae.config.scaling_factor - scale) < 1e-5 for scale in _STOCK_SCALES):
        return None  # ComfyUI knows Stable Diffusion's latents
    if backbone.text_encoder is None:
        return None
    size, channels = recipe.loop.latent_size, backbone.latent_channels
    teacher = {key: value.clone() for key, value in backbone.network.state_dict().items()}
    backbone.network.load_state_dict(weights)
    text = backbone.encode(open_prompts(recipe.prompts, recipe.seed).take(64))

    def noise(*step: int) -> torch.Tensor:
        rng = generator(recipe.seed, "preview", *step)
        return torch.randn((64, channels, size, size), generator=rng).to(backbone.network.device)

    x0 = few_step_x0(
        backbone,
        backbone.network,
        text,
        noise(),
        steps=levels.steps,
        noise=noise,
        kind=recipe.student.transition,
    )
    images = torch.cat([backbone.decode(row) for row in x0.split(1)])  # one by one to save memory
    rgb = functional.adaptive_avg_pool2d(images, x0.shape[-2:]) * 2 - 1
    backbone.network.load_state_dict(teacher)
    factors = torch.linalg.lstsq(
        x0.movedim(1, -1).flatten(0, -2).cpu(), rgb.movedim(1, -1).flatten(0, -2).cpu()
    ).solution
    return tuple(tuple(round(value, 4) for value in row) for row in factors.tolist())


def export_run(
    source: Path, which: str, out: Path, *, alpha: float | None = None, teacher: str = "", recipe: Recipe | None = None
) -> tuple[Path, str]:
    """Write the student of a run's checkpoint.

    Args:
        source: a run folder, or one of its checkpoints.
        which: of a run folder: "best", the latest if none was measured; "latest"; or a checkpoint's name or path.
        alpha: recommended NASA alpha to write instead of the recipe's.
        teacher: where the run's teacher is now; empty = where the recipe says.
        recipe: of the run, as it is now; None for the one that the checkpoint was written with.

    Returns:
        The file, and a line that says what is in it.

    Raises:
        FileNotFoundError: no teacher.
        ValueError: no such checkpoint, a damaged one, or another teacher than the run's.
    """
    checkpoint = _find_checkpoint(source, which)
    written = check_intact(checkpoint)["recipe"]
    recipe = recipe or Recipe.of_run(written)
    state = load_state(checkpoint)
    if alpha is not None:
        recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"recommended_alpha": alpha})})
    section = recipe.teacher.model_copy(update={"path": teacher}) if teacher else recipe.teacher
    backbone = load_teacher(section, t5=None)
    if fingerprint(backbone.network) != state.teacher:  # its VAE, text encoder and schedule go into the file
        raise ValueError(
            f"{section.path!r} is not the teacher of this run (its weights differ); give the right one with --teacher"
        )
    value, given = recipe.output.recommended_alpha, "" if alpha is not None else " (from the recipe)"
    path = export_student(out, backbone, state.averaged, recipe, state.iteration, teacher_fingerprint=state.teacher)
    weights = "averaged weights" if "ema" in state.networks else "weights without averaging"
    return path, (
        f"{checkpoint.name}{_why(checkpoint, state) if which == 'best' and checkpoint != source else ''}, {weights}: "
        f"timestep {', '.join(map(str, recipe.student.steps))}, "
        + ("no recommended alpha" if value is None else f"recommended alpha {value:g}{given}")
    )


def _why(checkpoint: Path, state: RunState) -> str:
    """Why the best checkpoint is that, in brackets."""
    latest = checkpoints(checkpoint.parent)[-1]
    if state.distance is None:
        return " (the latest; none was compared to the teacher, as output.sample_every would)"
    diversity = "" if state.diversity is None else f", {state.diversity:.0%} of its diversity"
    figures = f"distance {state.distance:.2f} from the teacher{diversity}"
    if checkpoint == latest:
        return f" (the latest: {figures}; no other kept checkpoint is clearly better, by more than {NOISE})"
    return f" (better than the latest by more than {NOISE}: {figures}; --checkpoint latest exports {latest.name})"


def _find_checkpoint(source: Path, which: str) -> Path:
    folder = source / "checkpoints"
    if (source / "state.json").is_file():
        return source
    if which == "best":
        found = best_checkpoint(folder) or newest_intact(folder)
    else:
        found = newest_intact(folder) if which == "latest" else _named_checkpoint(folder, which)
    if found is None:
        names = ", ".join(path.name for path in checkpoints(folder)) or "none"
        raise ValueError(f"{source} holds no usable checkpoint {which!r}; available: {names}")
    return found


def _named_checkpoint(folder: Path, which: str) -> Path | None:
    """The checkpoint in `folder` of this name, or at this path; None for a path to anywhere else."""
    path = Path(os.path.expanduser(which)).resolve()
    kept = checkpoints(folder)
    return next((found for found in kept if Path(which) == Path(found.name) or path == found.resolve()), None)


def teacher_provenance(folder: Path) -> Provenance:
    """From recipe.json in the teacher's folder, which only teachers of the small worlds have."""
    path = folder / "recipe.json"
    if not path.is_file():
        return provenance()
    content = json.loads(path.read_text(encoding="utf-8"))
    recipe = content["recipe"]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return provenance(digest, recipe["teacher"]["iterations"], recipe["teacher"]["seed"], content.get("notes", ""))
