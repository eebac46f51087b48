"""From a checkpoint file to the host's MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.sd
from comfy.model_patcher import ModelPatcher

from ..checkpoint import Checkpoint, CheckpointError, Metadata, read_checkpoint
from .architecture import text_arguments, unet_arguments, vae_arguments
from .build import build_clip, build_model, build_vae


def load_checkpoint(path: Path) -> tuple[ModelPatcher, comfy.sd.CLIP | None, comfy.sd.VAE]:
    """Everything that the file holds.

    A part that it does not hold becomes what the host's own Load Checkpoint returns then (None, and an empty VAE):
    the host's nodes know these and say so when they are used, and a file without them still gives its model.

    Raises:
        CheckpointError: the file cannot be used; says why and what to do.
    """
    checkpoint = read_checkpoint(path)
    metadata = checkpoint.metadata
    with _naming(path):
        _check_parts(metadata)
        model = build_model(metadata, checkpoint.unet)
        clip = None if metadata.text_encoder is None else _clip(checkpoint)
        vae = comfy.sd.VAE(sd={}) if metadata.vae is None else build_vae(metadata.vae, checkpoint.vae)
    logging.info("%s: %s", path.name, _summary(metadata))
    missing = [name for name, part in (("text encoder", clip), ("VAE", metadata.vae)) if part is None]
    if missing:
        logging.warning(
            "%s holds no %s: use a CLIP or VAE loader in place of PG-SB Loader's output",
            path.name,
            " and no ".join(missing),
        )
    # The host opens a model again for another GPU, or when hooks need it in ordinary memory.
    model.cached_patcher_init = (_model_patcher, (path,))
    if clip is not None:
        clip.patcher.cached_patcher_init = (_clip_patcher, (path,))
    if metadata.vae is not None:
        vae.patcher.cached_patcher_init = (_vae_patcher, (path,))
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
    return f"{' '.join(metadata.title.split())!r}, {timesteps}, {advice} for NASA Apply"


def _model_patcher(path: Path, disable_dynamic: bool = False) -> ModelPatcher:
    checkpoint = read_checkpoint(path)
    return build_model(checkpoint.metadata, checkpoint.unet, disable_dynamic=disable_dynamic)


def _clip_patcher(path: Path, disable_dynamic: bool = False) -> ModelPatcher:
    return _clip(read_checkpoint(path), disable_dynamic=disable_dynamic).patcher


def _vae_patcher(path: Path, disable_dynamic: bool = False) -> ModelPatcher:
    checkpoint = read_checkpoint(path)
    return build_vae(checkpoint.metadata.vae, checkpoint.vae).patcher


def _check_parts(metadata: Metadata) -> None:
    """The parts are built one by one; here, that the host has them and that they fit each other."""
    unet, text, vae, recipe = metadata.unet, metadata.text_encoder, metadata.vae, metadata.recipe
    arguments = unet_arguments(unet)
    width, channels = arguments["context_dim"], arguments["in_channels"]
    if text is not None and (got := text_arguments(text)["hidden_size"]) != width:
        raise ValueError(f"the text encoder is {got} wide, the UNet's cross-attention takes {width}")
    if vae is not None and (got := vae_arguments(vae)["embed_dim"]) != channels:
        raise ValueError(f"the VAE has {got} latent channels, the UNet takes {channels}")
    colours = metadata.latent_rgb_factors
    if colours is not None and len(colours) != channels:
        raise ValueError(
            f"latent_rgb_factors has {len(colours)} rows, expected {channels}, one for each latent channel"
        )
    if recipe is not None and recipe.timesteps[0] >= metadata.schedule.num_train_timesteps:
        raise ValueError(
            f"the recipe starts at timestep {recipe.timesteps[0]}, "
            f"the schedule has {metadata.schedule.num_train_timesteps} timesteps"
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name in front of what is wrong with its contents.

    RuntimeErrors pass: once configs and weights have been compared, they are the machine's, such as too little memory.
    """
    try:
        yield
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{path.name}: its config lacks {error}; export the file again") from error
    except ValueError as error:
        raise CheckpointError(f"{path.name}: {error}; export the file again") from error
    except (ArithmeticError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{path.name}: the host cannot use its config ({type(error).__name__}: {error}); export the file again"
        ) from error
