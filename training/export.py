"""`python -m training.export`: a run's student, or any model, as the one file that PG-SB Loader opens."""

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

from snoopi_core.formats.architecture import text_arguments, unet_arguments, vae_arguments
from snoopi_core.formats.architecture_pixart import pixart_arguments
from snoopi_core.formats.checkpoint import Checkpoint, Metadata, OneStepRecipe, Provenance, write_checkpoint
from snoopi_core.formats.layouts import StateDict, text_encoder_rename, to_single_file, vae_rename
from snoopi_core.formats.lora import LoraMetadata, adapters_of, own_lora_metadata, write_lora
from snoopi_core.formats.tensor_file import open_tensor_file
from training.config import Recipe, find_file
from training.distill.noise_levels import Levels
from training.distill.rng import generator
from training.models.backbone import Backbone, fingerprint, load_backbone, load_teacher
from training.models.sampling import one_step_x0
from training.prompts import open_prompts
from training.trainer.run_folder.checkpoint import best_checkpoint, check_whole, checkpoints, load_state, newest_whole

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
    """Write `backbone`, or its parts around another network's weights, as a contract file; never with T5.

    Args:
        weights: of the network, under diffusers' names; None = the backbone's own.
        metadata: title, role, and whatever else of `Metadata` the model's parts do not say.

    Raises:
        ValueError: the networks cannot be built by ComfyUI; or (CheckpointError) see `write_checkpoint`.
    """
    check_exportable(backbone)
    network, vae = backbone.network, backbone.vae
    text_encoder = backbone.text_encoder if backbone.family.name == "unet" else None
    if text_encoder is not None:
        # the config in full: a library's defaults may change
        metadata |= {"text_encoder": _public(text_encoder.config.to_dict())}
        metadata |= {"pad_token_id": backbone.tokenizer.pad_token_id}
    checkpoint = Checkpoint(
        metadata=Metadata(
            family=backbone.family.name,
            prediction_type=backbone.prediction_type,
            unet=_config(network),
            vae=_config(vae),
            latent_scale=vae.config.scaling_factor,
            schedule=backbone.schedule,
            **metadata,
        ),
        unet=backbone.family.to_single_file(weights or network.state_dict(), network.config),
        vae=to_single_file(vae.state_dict(), vae_rename(vae.config)),
        text_encoder=None if text_encoder is None else _named_as_in_files(text_encoder),
    )
    return write_checkpoint(path, checkpoint)


def export_student(path: Path, backbone: Backbone, weights: StateDict, recipe: Recipe, step: int) -> Path:
    """Write a student of `recipe`; `backbone` is its teacher as it was loaded.

    Args:
        weights: what was trained: of the whole network, or, where recipe.student.train is "lora", of its adapters.
    """
    levels = Levels.from_schedule(backbone.alphas_cumprod(), recipe)
    about = {
        "title": recipe.output.title,
        "recipe": OneStepRecipe(timesteps=(recipe.student.timestep,), alpha_T=levels.alpha_T, sigma_T=levels.sigma_T),
        "recommended_alpha": recipe.output.recommended_alpha,
        "provenance": provenance(recipe.sha256(), step, recipe.seed),
    }
    if recipe.student.train == "lora":
        metadata = LoraMetadata(
            family=backbone.family.name,
            prediction_type=backbone.prediction_type,
            schedule=backbone.schedule,
            base=_said(recipe.student.init or recipe.teacher.path),
            **about,
        )
        return write_lora(path, metadata, adapters_of(weights), alpha=recipe.student.lora_scaling)
    colours = _preview_colours(backbone, weights, recipe, levels)
    return export_backbone(path, backbone, weights, role="student", latent_rgb_factors=colours, **about)


def _said(path: str) -> str:
    """A model's path as others may read it: a hub id or a relative path, but no folders of this machine's."""
    return Path(path).name if Path(path).expanduser().is_absolute() else path


def _named_as_in_files(text_encoder: nn.Module) -> StateDict:
    return {text_encoder_rename(key): weight for key, weight in text_encoder.state_dict().items()}


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
    if backbone.text_encoder is None:
        return None
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


def _checkpoint_of(source: Path, which: str) -> Path:
    """One of a run's checkpoints by name; or `source` itself, where it is one."""
    folder = source / "checkpoints"
    if (source / "state.json").is_file():
        return source
    found = {"latest": newest_whole, "best": best_checkpoint}.get(which, lambda folder: folder / which)(folder)
    if found is None or not found.is_dir():
        names = ", ".join(path.name for path in checkpoints(folder)) or "none"
        raise ValueError(f"{source} holds no usable checkpoint {which!r}; there is {names}")
    return found


def _from_run(source: Path, which: str, alpha: float | None, out: Path, teacher: str) -> Path:
    checkpoint = _checkpoint_of(source, which)
    recipe = Recipe.model_validate(check_whole(checkpoint)["recipe"])
    state = load_state(checkpoint)
    if alpha is not None:
        recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"recommended_alpha": alpha})})
    section = recipe.teacher.model_copy(update={"path": teacher}) if teacher else recipe.teacher
    backbone = load_teacher(section, t5=None)
    if fingerprint(backbone.network) != state.teacher:  # its VAE, text encoder and schedule go into the file
        raise ValueError(
            f"the teacher {section.path!r} is not the one that this run was trained from (its weights differ); name "
            "that with --teacher"
        )
    path = export_student(out, backbone, state.averaged, recipe, state.iteration)
    weights = "averaged weights" if "ema" in state.networks else "weights as they are"
    print(
        f"{checkpoint.name}, {weights}: timestep {recipe.student.timestep}, "
        f"recommended alpha {recipe.output.recommended_alpha}"
    )
    return path


def _place(path: Path) -> str:
    return "checkpoints" if own_lora_metadata(open_tensor_file(path, "file")) is None else "loras"


def _teacher_provenance(folder: Path) -> Provenance:
    """From the recipe.json that `experiments.shapes_teacher.build` keeps in its folder; other teachers have none."""
    path = folder / "recipe.json"
    if not path.is_file():
        return provenance()
    recipe = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return provenance(digest, recipe["teacher"]["iterations"], recipe["teacher"]["seed"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument(
        "source", help="a run's folder, one of its checkpoints, or a model: diffusers folder, hub id or single file"
    )
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--checkpoint",
        default="latest",
        help="of a run: latest; best, the one nearest to the teacher as sampled; or a name such as step-00001000 "
        "(default: latest)",
    )
    parser.add_argument("--alpha", type=float, help="recommended NASA alpha to write into the file")
    parser.add_argument("--title", default="Teacher", help="title of a teacher's file")
    parser.add_argument("--teacher", default="", help="of a run whose teacher was moved: where it is now")
    for part in ("text-encoder", "vae"):
        parser.add_argument(f"--{part}", default="", help="of a model: diffusers folder or hub id to take it from")
    args = parser.parse_args(arguments)
    source = find_file(args.source)
    try:
        if (source / "state.json").is_file() or (source / "checkpoints").is_dir():
            path = _from_run(source, args.checkpoint, args.alpha, args.out, args.teacher)
        else:
            path = export_backbone(
                args.out,
                load_backbone(args.source, text_encoder=args.text_encoder, vae=args.vae, t5=None),
                title=args.title,
                role="teacher",
                recommended_alpha=args.alpha,
                provenance=_teacher_provenance(source),
            )
    except (OSError, ValueError) as error:
        also = "" if source.exists() else "; or the folder of a run, or one of its checkpoints"
        print(f"error: {error}{also}", file=sys.stderr)
        return 2
    place = f"ComfyUI/models/{_place(path)}"
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; put it into {place} and open it with PG-SB Loader")
    return 0


if __name__ == "__main__":
    sys.exit(main())
