"""From a checkpoint file to the host's MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.sd
from comfy.model_patcher import ModelPatcher

from ...formats.architecture import text_arguments, vae_arguments
from ...formats.checkpoint import Checkpoint, CheckpointError, Metadata, find_metadata, read_checkpoint, read_parts
from ...formats.tensor_file import TensorFile, open_tensor_file, readable
from .build import build_clip, build_model, build_vae, network_arguments
from .foreign import describe, foreign_clip, foreign_model, foreign_vae, recognise
from .lora import apply_lora

Parts = tuple[ModelPatcher, comfy.sd.CLIP | None, comfy.sd.VAE]


def load_checkpoint(path: Path, lora: Path | None = None, latents: str = "auto") -> Parts:
    """Everything that the file holds.

    A part that it does not hold becomes what the host's own Load Checkpoint returns then (None, and an empty VAE):
    the host's nodes know these and say so when they are used, and a file without them still gives its model.

    Args:
        lora: a student's LoRA, put on the model and its text encoder.
        latents: for PixArt files of other makers, see `foreign_model`.

    Raises:
        CheckpointError: the file or the LoRA cannot be used; says which, why and what to do.
    """
    file = open_tensor_file(path)
    metadata = find_metadata(file)
    if metadata is None:
        model, clip, vae = _open_foreign(file, latents)
    else:
        model, clip, vae = _open_own(file, metadata)
    missing = [name for name, part in (("text encoder", clip), ("VAE", vae)) if part is None]
    if missing:
        logging.warning(
            "%s holds no %s: use a CLIP or VAE loader in place of PG-SB Loader's output",
            readable(path.name),
            " and no ".join(missing),
        )
    # The host opens a model again for another GPU, or when hooks need it in ordinary memory.
    model.cached_patcher_init = (_model_patcher, (path, latents))
    if clip is not None:
        clip.patcher.cached_patcher_init = (_clip_patcher, (path,))
    if vae is not None:
        vae.patcher.cached_patcher_init = (_vae_patcher, (path,))
    if lora is not None:
        with _naming(lora, "LoRA"):
            model, clip = apply_lora(lora, model, clip)
    return model, clip, comfy.sd.VAE(sd={}) if vae is None else vae


def _open_own(file: TensorFile, metadata: Metadata) -> tuple[ModelPatcher, comfy.sd.CLIP | None, comfy.sd.VAE | None]:
    checkpoint = read_parts(file, metadata)
    with _naming(file.path, "export"):
        _check_parts(metadata)
        model = build_model(metadata, checkpoint.unet)
        clip = None if metadata.text_encoder is None else _clip(checkpoint)
        vae = None if metadata.vae is None else build_vae(metadata.vae, checkpoint.vae)
    logging.info("%s", readable(f"{file.path.name}: {_summary(metadata)}"))
    return model, clip, vae


def _open_foreign(file: TensorFile, latents: str) -> tuple[ModelPatcher, comfy.sd.CLIP | None, comfy.sd.VAE | None]:
    with _naming(file.path):
        found = recognise(file)
        model = foreign_model(found, latents)
        clip, vae = foreign_clip(found), foreign_vae(found)
    logging.info("%s", readable(f"{file.path.name}: {describe(found, model)}"))
    if found.guesses_latents and latents == "auto":
        logging.warning(
            "%s: PixArt-alpha 512 and PixArt-sigma have the same keys; taken as PixArt-sigma, whose latents are "
            "SDXL's. For PixArt-alpha 512 set PG-SB Loader's `latents` to SD1.x",
            readable(file.path.name),
        )
    return model, clip, vae


def _clip(checkpoint: Checkpoint, *, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    metadata = checkpoint.metadata
    return build_clip(
        metadata.text_encoder,
        checkpoint.text_encoder,
        pad_token_id=metadata.pad_token_id,
        disable_dynamic=disable_dynamic,
    )


def _summary(metadata: Metadata) -> str:
    """What a person would otherwise have to read off the header, in one line."""
    recipe, alpha = metadata.recipe, metadata.recommended_alpha
    timesteps = "no recipe" if recipe is None else f"timesteps {', '.join(map(str, recipe.timesteps))}"
    advice = "no recommended alpha" if alpha is None else f"recommended alpha {alpha:g}"
    return f"{' '.join(metadata.title.split())!r}, {_size(metadata)}{timesteps}, {advice} for NASA Apply"


def _size(metadata: Metadata) -> str:
    """How large its pictures are, where the file tells."""
    side = metadata.unet.get("sample_size")
    if not isinstance(side, int) or metadata.vae is None:
        return ""
    side *= 2 ** (len(metadata.vae["block_out_channels"]) - 1)
    return f"draws {side} x {side} pixels, "


def _model_patcher(path: Path, latents: str, disable_dynamic: bool = False) -> ModelPatcher:
    file = open_tensor_file(path)
    if (metadata := find_metadata(file)) is None:
        return foreign_model(recognise(file), latents, disable_dynamic=disable_dynamic)
    return build_model(metadata, read_parts(file, metadata).unet, disable_dynamic=disable_dynamic)


def _clip_patcher(path: Path, disable_dynamic: bool = False) -> ModelPatcher:
    file = open_tensor_file(path)
    if find_metadata(file) is None:
        return foreign_clip(recognise(file), disable_dynamic=disable_dynamic).patcher
    return _clip(read_checkpoint(path), disable_dynamic=disable_dynamic).patcher


def _vae_patcher(path: Path, disable_dynamic: bool = False) -> ModelPatcher:
    file = open_tensor_file(path)
    if find_metadata(file) is None:
        return foreign_vae(recognise(file)).patcher
    checkpoint = read_checkpoint(path)
    return build_vae(checkpoint.metadata.vae, checkpoint.vae).patcher


def _check_parts(metadata: Metadata) -> None:
    """The parts are built one by one; here, that the host has them and that they fit each other."""
    text, vae = metadata.text_encoder, metadata.vae
    arguments = network_arguments(metadata)
    channels = arguments["in_channels"]
    if text is not None and metadata.family == "pixart":
        raise ValueError("it holds a CLIP text encoder, PixArt reads T5's")
    width = arguments.get("context_dim")
    if text is not None and (got := text_arguments(text)["hidden_size"]) != width:
        raise ValueError(f"the text encoder is {got} wide, the UNet's cross-attention takes {width}")
    if vae is not None and (got := vae_arguments(vae)["embed_dim"]) != channels:
        raise ValueError(f"the VAE has {got} latent channels, the UNet takes {channels}")
    colours = metadata.latent_rgb_factors
    if colours is not None and len(colours) != channels:
        raise ValueError(
            f"latent_rgb_factors has {len(colours)} rows, expected {channels}, one for each latent channel"
        )


@contextmanager
def _naming(path: Path, kind: str = "") -> Iterator[None]:
    """Put the file's name in front of what is wrong with its contents.

    RuntimeErrors pass: once configs and weights have been compared, they are the machine's, such as too little memory.
    """
    advice = "; export the file again" if kind == "export" else ""
    try:
        yield
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{path.name}: its config lacks {error}{advice}") from error
    except ValueError as error:
        raise CheckpointError(f"{path.name}: {error}{advice}") from error
    except (ArithmeticError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{path.name}: the host cannot use its {'config' if kind == 'export' else 'contents'} "
            f"({type(error).__name__}: {error}){advice}"
        ) from error
