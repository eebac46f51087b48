"""`python -m training.export`: a run's student, or a teacher's folder, as the one file that PG-SB Loader opens."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from snoopi_core.checkpoint import Checkpoint, Metadata, OneStepRecipe, Provenance, write_checkpoint
from snoopi_core.layouts import StateDict, text_encoder_rename, to_single_file, unet_rename, vae_rename
from training.backbone import Backbone, load_backbone, load_teacher
from training.config import Recipe
from training.levels import Levels
from training.noise import generator
from training.prompts import open_prompts
from training.sampling import one_step_x0
from training.state import check_whole, checkpoints, load_state, newest_whole

_HOST_GROUPS = 32
_STOCK_SCALE = 0.18215
_PACKAGES = ("torch", "diffusers", "peft", "transformers", "accelerate", "safetensors")


def provenance(recipe_sha256: str = "", step: int = 0, seed: int | None = None, notes: str = "") -> Provenance:
    """Recipe, step and library versions that made the weights."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Provenance(
        recipe_sha256=recipe_sha256,
        step=step,
        seed=seed,
        versions=versions,
        notes=notes,
    )


def check_exportable(backbone: Backbone) -> None:
    """Whether ComfyUI could build the networks of a file made from `backbone`; asked before hours are spent on one.

    Raises:
        ValueError: it could not; says why.
    """
    for part in (backbone.network, backbone.vae):
        if part.config.norm_num_groups != _HOST_GROUPS:
            raise ValueError(
                f"{type(part).__name__} has {part.config.norm_num_groups} groups in its group norms; "
                f"ComfyUI builds this network with {_HOST_GROUPS}, so it could not open the file"
            )
    for part, rename in ((backbone.network, unet_rename), (backbone.vae, vae_rename)):
        for key in part.state_dict():
            rename(part.config)(key)


def export_backbone(path: Path, backbone: Backbone, unet_weights: StateDict | None = None, **metadata: Any) -> Path:
    """Write `backbone`, or its parts around another UNet's weights, as a contract file.

    Args:
        unet_weights: under diffusers' names; None = the backbone's own.
        metadata: title, role, and whatever else of `Metadata` the model's parts do not say.

    Raises:
        ValueError: the networks cannot be built by ComfyUI; or (CheckpointError) see `write_checkpoint`.
    """
    check_exportable(backbone)
    unet, vae, text_encoder = backbone.network, backbone.vae, backbone.text_encoder
    checkpoint = Checkpoint(
        metadata=Metadata(
            prediction_type=backbone.prediction_type,
            unet=_config(unet),
            vae=_config(vae),
            text_encoder=_public(text_encoder.config.to_dict()),  # in full: a library's defaults may change
            latent_scale=vae.config.scaling_factor,
            pad_token_id=backbone.tokenizer.pad_token_id,
            schedule=backbone.schedule,
            **metadata,
        ),
        unet=to_single_file(unet_weights or unet.state_dict(), unet_rename(unet.config)),
        vae=to_single_file(vae.state_dict(), vae_rename(vae.config)),
        text_encoder={text_encoder_rename(key): weight for key, weight in text_encoder.state_dict().items()},
    )
    return write_checkpoint(path, checkpoint)


def export_student(path: Path, backbone: Backbone, weights: StateDict, recipe: Recipe, step: int) -> Path:
    """Write a student of `recipe`; `backbone` is its teacher as it was loaded."""
    levels = Levels.from_schedule(backbone.alphas_cumprod(), recipe)
    return export_backbone(
        path,
        backbone,
        weights,
        title=recipe.output.title,
        role="student",
        recipe=OneStepRecipe(timesteps=(recipe.student.timestep,), alpha_T=levels.alpha_T, sigma_T=levels.sigma_T),
        recommended_alpha=recipe.output.recommended_alpha,
        latent_rgb_factors=_preview_colours(backbone, weights, recipe, levels),
        provenance=provenance(recipe.sha256(), step, recipe.seed),
    )


def _config(module: nn.Module) -> dict[str, Any]:
    """A diffusers config as plain JSON."""
    return _public(json.loads(module.to_json_string()))


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Without the entries that only say where on this machine a model was loaded from."""
    return {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}


@torch.no_grad()
def _preview_colours(
    backbone: Backbone, weights: StateDict, recipe: Recipe, levels: Levels
) -> tuple[tuple[float, ...], ...] | None:
    """RGB in [-1, 1] of a latent pixel as a linear map, (C, 3), fitted on 64 images; what the host's previews need."""
    if abs(backbone.vae.config.scaling_factor - _STOCK_SCALE) < 1e-5:
        return None  # the host has preview colours for Stable Diffusion's latents
    size, channels = recipe.loop.latent_size, backbone.latent_channels
    teacher = {key: value.clone() for key, value in backbone.network.state_dict().items()}
    backbone.network.load_state_dict(weights)
    text = backbone.encode(open_prompts(recipe.prompts, recipe.seed).take(64))
    z = torch.randn((64, channels, size, size), generator=generator(recipe.seed, "preview")).to(backbone.network.device)
    x0 = one_step_x0(
        backbone,
        backbone.network,
        text,
        z,
        timestep=recipe.student.timestep,
        alpha_T=levels.alpha_T,
        sigma_T=levels.sigma_T,
    )
    images = torch.cat([backbone.decode(row) for row in x0.split(1)])  # one by one: big images take much memory
    rgb = functional.adaptive_avg_pool2d(images, x0.shape[-2:]) * 2 - 1
    backbone.network.load_state_dict(teacher)
    factors = torch.linalg.lstsq(
        x0.movedim(1, -1).flatten(0, -2).cpu(), rgb.movedim(1, -1).flatten(0, -2).cpu()
    ).solution
    return tuple(tuple(round(value, 4) for value in row) for row in factors.tolist())


def _from_run(source: Path, alpha: float | None, out: Path) -> Path:
    is_checkpoint = (source / "state.json").is_file()
    checkpoint = source if is_checkpoint else newest_whole(source / "checkpoints")
    if checkpoint is None:
        raise ValueError(f"{source} holds no usable checkpoint")
    recipe = Recipe.model_validate(check_whole(checkpoint)["recipe"])
    state = load_state(checkpoint)
    if alpha is not None:
        recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"recommended_alpha": alpha})})
    return export_student(out, load_teacher(recipe.teacher), state.averaged, recipe, state.iteration)


def _teacher_provenance(folder: Path) -> Provenance:
    """From the recipe.json that `training.shapes.build` keeps in its folder; other teachers have none."""
    path = folder / "recipe.json"
    if not path.is_file():
        return provenance()
    recipe = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return provenance(digest, recipe["teacher"]["iterations"], recipe["teacher"]["seed"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument(
        "source", type=Path, help="a run folder, one of its checkpoints, or a teacher's diffusers folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--alpha", type=float, help="recommended NASA alpha to write into the file")
    parser.add_argument("--title", default="Teacher", help="title of a teacher's file")
    args = parser.parse_args(arguments)
    try:
        if (args.source / "state.json").is_file() or checkpoints(args.source / "checkpoints"):
            path = _from_run(args.source, args.alpha, args.out)
        else:
            path = export_backbone(
                args.out,
                load_backbone(str(args.source)),
                title=args.title,
                role="teacher",
                recommended_alpha=args.alpha,
                provenance=_teacher_provenance(args.source),
            )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
