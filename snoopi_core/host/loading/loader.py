"""Load a checkpoint file as the host's MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import comfy.sd
from comfy.model_patcher import ModelPatcher

from ...formats.architecture import text_arguments, vae_arguments, vae_factor
from ...formats.checkpoint import Checkpoint, CheckpointError, Metadata, find_metadata, read_parts
from ...formats.tensor_file import TensorFile, open_tensor_file, readable
from .build import build_clip, build_model, build_vae, network_arguments
from .foreign import describe, foreign_clip, foreign_model, foreign_vae
from .lora import apply_lora
from .recognise import Foreign, recognise

Parts = tuple[ModelPatcher, comfy.sd.CLIP | None, comfy.sd.VAE | None]
Builders = tuple[Callable[[], ModelPatcher], Callable[[], comfy.sd.CLIP | None], Callable[[], comfy.sd.VAE | None]]


def load_checkpoint(path: Path, lora: Path | None = None, latents: str = "auto") -> Parts:
    """Load all parts that the file contains.

    A missing part becomes what the host's own Load Checkpoint returns (None, or an empty VAE), for which the host's
    nodes have error messages, so a file without these parts can still be used for its model.

    Args:
        lora: a student's LoRA, applied to the model and its text encoder.
        latents: for PixArt files of other sources, see `foreign_model`.

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
            "%s contains no %s: use a CLIP or VAE loader instead of PG-SB Loader's output",
            readable(path.name),
            " and no ".join(missing),
        )
    # The host reloads a model for another GPU, or when hooks need it in ordinary memory.
    for number, part in enumerate((model, clip, vae)):
        if part is not None:
            _patcher_of(part).cached_patcher_init = (_load_again, (path, latents, number))
    if lora is not None:
        with _errors_with_file_name(lora, "LoRA"):
            model, clip = apply_lora(lora, model, clip)
    return model, clip, comfy.sd.VAE(sd={}) if vae is None else vae


def _open_own(file: TensorFile, metadata: Metadata) -> Parts:
    checkpoint = read_parts(file, metadata)
    with _errors_with_file_name(file.path, "export"):
        _check_parts(metadata)
        model, clip, vae = (build() for build in _own_builders(checkpoint))
    logging.info("%s", readable(f"{file.path.name}: {_describe(metadata)}"))
    return model, clip, vae


def _open_foreign(file: TensorFile, latents: str) -> Parts:
    with _errors_with_file_name(file.path):
        found = recognise(file)
        model, clip, vae = (build() for build in _foreign_builders(found, latents))
    logging.info("%s", readable(f"{file.path.name}: {describe(found, model)}"))
    if found.guesses_latents and latents == "auto":
        logging.warning(
            "%s: PixArt-alpha 512 and PixArt-sigma have the same keys; PixArt-sigma is assumed, which uses SDXL's "
            "latents. For PixArt-alpha 512 set PG-SB Loader's `latents` to SD1.x",
            readable(file.path.name),
        )
    return model, clip, vae


def _own_builders(checkpoint: Checkpoint, disable_dynamic: bool = False) -> Builders:
    """Functions that build model, text encoder and VAE; they return None for a part that the file does not contain."""
    metadata, text, vae = checkpoint.metadata, checkpoint.text_encoder, checkpoint.vae
    encoder = partial(build_clip, pad_token_id=metadata.pad_token_id, disable_dynamic=disable_dynamic)
    return (
        lambda: build_model(metadata, checkpoint.unet, disable_dynamic=disable_dynamic),
        lambda: None if text is None else encoder(metadata.text_encoder, text),
        lambda: None if vae is None else build_vae(metadata.vae, vae),
    )


def _foreign_builders(found: Foreign, latents: str, disable_dynamic: bool = False) -> Builders:
    """As `_own_builders`, for a file of other sources."""
    return (
        lambda: foreign_model(found, latents, disable_dynamic=disable_dynamic),
        lambda: foreign_clip(found, disable_dynamic=disable_dynamic),
        lambda: foreign_vae(found),
    )


def _load_again(path: Path, latents: str, part: int, disable_dynamic: bool = False) -> ModelPatcher:
    """A new patcher of the model (`part` 0), the text encoder (1) or the VAE (2)."""
    file = open_tensor_file(path)
    if (metadata := find_metadata(file)) is None:
        builders = _foreign_builders(recognise(file), latents, disable_dynamic)
    else:
        builders = _own_builders(read_parts(file, metadata), disable_dynamic)
    return _patcher_of(builders[part]())


def _patcher_of(part: ModelPatcher | comfy.sd.CLIP | comfy.sd.VAE) -> ModelPatcher:
    return part if isinstance(part, ModelPatcher) else part.patcher


def _describe(metadata: Metadata) -> str:
    """The main metadata in one line, for the log."""
    recipe, alpha, side = metadata.recipe, metadata.recommended_alpha, metadata.unet.get("sample_size")
    size = ""
    if isinstance(side, int) and metadata.vae is not None:
        side *= vae_factor(metadata.vae)
        size = f"{side} x {side} pixels, "
    timesteps = "no recipe" if recipe is None else f"timesteps {', '.join(map(str, recipe.timesteps))}"
    advice = "no recommended alpha" if alpha is None else f"recommended alpha {alpha:g}"
    advice += " (no negative prompt)" if alpha == 0.0 else ""
    return f"{' '.join(metadata.title.split())!r}, {size}{timesteps}, {advice} for NASA Apply"


def _check_parts(metadata: Metadata) -> None:
    """Check that the host supports all parts and that they fit each other."""
    text, vae = metadata.text_encoder, metadata.vae
    arguments = network_arguments(metadata)
    channels = arguments["in_channels"]
    if text is not None and metadata.family == "pixart":
        raise ValueError("it contains a CLIP text encoder, expected none: PixArt uses T5")
    width = arguments.get("context_dim")
    if text is not None and (got := text_arguments(text)["hidden_size"]) != width:
        raise ValueError(f"the text encoder is {got} wide, the UNet's cross-attention expects {width}")
    if vae is not None and (got := vae_arguments(vae)["embed_dim"]) != channels:
        raise ValueError(f"the VAE has {got} latent channels, the UNet expects {channels}")
    colours = metadata.latent_rgb_factors
    if colours is not None and len(colours) != channels:
        raise ValueError(
            f"latent_rgb_factors has {len(colours)} rows, expected {channels}, one for each latent channel"
        )


@contextmanager
def _errors_with_file_name(path: Path, kind: str = "") -> Iterator[None]:
    """Turn errors about a file's contents into CheckpointErrors that start with its name.

    RuntimeErrors pass: after configs and weights have been compared, their cause is the machine, such as out of memory.
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
            f"{path.name}: ComfyUI cannot use its {'config' if kind == 'export' else 'contents'} "
            f"({type(error).__name__}: {error}){advice}"
        ) from error
