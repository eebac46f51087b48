"""Single files: our exporter's, and other programs' (Stable Diffusion 1, 2 and XL, and PixArt's transformer)."""

from __future__ import annotations

import logging

import torch
from diffusers import DDPMScheduler
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from snoopi_core.formats.checkpoint import Metadata, Schedule, read_parts
from snoopi_core.formats.joined_layouts import pixart_to_single_file
from snoopi_core.formats.layouts import text_encoder_rename
from snoopi_core.formats.single_file_extras import is_harmless, stored_sigmas
from snoopi_core.formats.tensor_file import StateDict, TensorFile
from training.models.clip_tokenizer import EOS, clip_tokenizer
from training.models.loading.build import build_clip, build_network, build_vae
from training.models.loading.infer_config import (
    clip_config,
    count_numbered,
    pixart_config,
    sdxl_config,
    unet_config,
    vae_config,
)
from training.models.loading.model_files import (
    SUPPORTED,
    ModelFiles,
    TextEncoder,
    check_supported,
    errors_naming,
    unet_family,
)
from training.models.text_pair import TextEncoderPair

log = logging.getLogger(__name__)

_NETWORK, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP, _OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
_XL_CLIP, _XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
_XL_SCALE = 0.13025
_OPEN_CLIP_LAYERS = 24  # Stable Diffusion 2 uses the last but one; some files omit the last
_PREDICTIONS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
_V_MARKER, _ZERO_SNR_MARKER = "v_pred", "ztsnr"  # empty weights by which ComfyUI marks such models
# Position embeddings for one size, and a learned null prompt; diffusers computes the former and encodes "" instead.
_NOT_IN_DIFFUSERS = ("pos_embed", "y_embedder.y_embedding")
_PIXART_SCHEDULE = Schedule(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)


def open_contract(file: TensorFile, metadata: Metadata) -> ModelFiles:
    """The model in a file that our exporter wrote; its header describes it completely.

    Raises:
        CheckpointError: it has weights that its metadata does not describe.
        ValueError: the model is not supported.
    """
    family = metadata.family if metadata.family == "pixart" else unet_family(metadata.unet)
    with errors_naming(file.path.name):
        check_supported(family, metadata.unet)
    parts = read_parts(file, metadata)  # memory-mapped, not read yet

    def read_text_encoder(dtype: torch.dtype) -> TextEncoder:
        encoder = build_clip(metadata.text_encoder, parts.text_encoder)
        return encoder, clip_tokenizer(clip_tokenizer().convert_ids_to_tokens(metadata.pad_token_id))

    return ModelFiles(
        family=family,
        read_network=lambda: build_network(metadata.family, metadata.unet, parts.unet),
        read_text_encoder=None if metadata.text_encoder is None else read_text_encoder,
        read_vae=None if metadata.vae is None else lambda: build_vae(metadata.vae, parts.vae),
        schedule=metadata.schedule,
        prediction_type=metadata.prediction_type,
        recipe=metadata.recipe,
        notes=metadata.provenance.notes,
    )


def open_single_file(file: TensorFile) -> ModelFiles:
    """Recognise another program's file by the names of its weights.

    Raises:
        ValueError: it is not a supported model, or only a part of one; the message names the file and its content.
    """
    with errors_naming(file.path.name):
        names = [name for name in file.names if not is_harmless(name) and name != _V_MARKER]
        weights = file.read(names)  # memory-mapped, not read yet
        network = _with_prefix(_NETWORK, weights) or weights
        if any("lora_" in name for name in names):
            raise ValueError("it is a LoRA, which is not a model by itself")
        if _ZERO_SNR_MARKER in names:
            raise ValueError(
                "its noise schedule ends in pure noise, where x0 cannot be computed from eps; this is not supported"
            )
        if "adaln_single.linear.weight" in network:
            network = pixart_to_single_file(network)
        if "t_block.1.weight" in network:
            return _open_pixart(file, network, _with_prefix(_VAE, weights))
        if "label_emb.0.0.weight" in network:
            return _open_sdxl(file, network, weights)
        if "input_blocks.0.0.weight" in network:
            return _open_stable_diffusion(file, network, weights)
        hint = "; or give the diffusers folder that it belongs to" if "conv_in.weight" in network else ""
        raise ValueError(f"the network is unknown (first weights: {', '.join(list(network)[:3])}). {SUPPORTED}{hint}")


def _open_stable_diffusion(file: TensorFile, network: StateDict, weights: StateDict) -> ModelFiles:
    config = unet_config(network)
    check_supported("unet", config)
    sd2 = config["use_linear_projection"]
    clip, open_clip, vae = (_with_prefix(prefix, weights) for prefix in (_CLIP, _OPEN_CLIP, _VAE))
    if others := len(weights) - sum(map(len, (network, clip, open_clip, vae))):
        raise ValueError(f"it has {others} weight(s) that do not belong to Stable Diffusion. {SUPPORTED}")
    schedule = _schedule(file)

    def read_text_encoder(dtype: torch.dtype) -> TextEncoder:
        encoder = _read_open_clip(open_clip) if open_clip else _read_clip(clip, sd2=sd2)
        return encoder, clip_tokenizer("!" if sd2 or open_clip else EOS)

    return ModelFiles(
        family="unet",
        read_network=lambda: build_network("unet", config, network),
        read_text_encoder=read_text_encoder if clip or open_clip else None,
        read_vae=(lambda: build_vae(vae_config(vae), vae)) if vae else None,
        schedule=schedule,
        prediction_type=_prediction_type(file, sd2=sd2),
    )


def _open_sdxl(file: TensorFile, network: StateDict, weights: StateDict) -> ModelFiles:
    config = sdxl_config(network)
    check_supported("sdxl", config)
    clip, open_clip, vae = (_with_prefix(prefix, weights) for prefix in (_XL_CLIP, _XL_OPEN_CLIP, _VAE))
    if others := len(weights) - sum(map(len, (network, clip, open_clip, vae))):
        raise ValueError(
            f"it has {others} weight(s) that do not belong to Stable Diffusion XL, like its refiner or its variants "
            f"with other noise schedules. {SUPPORTED}"
        )
    schedule = _schedule(file)

    def read_text_encoder(dtype: torch.dtype) -> TextEncoder:
        pair = TextEncoderPair(_read_clip(clip, sd2=False), _read_projected_clip(open_clip))
        return pair, (clip_tokenizer(EOS), clip_tokenizer("!"))

    return ModelFiles(
        family="sdxl",
        read_network=lambda: build_network("sdxl", config, network),
        read_text_encoder=read_text_encoder if clip and open_clip else None,
        read_vae=(lambda: build_vae(vae_config(vae, scale=_XL_SCALE), vae)) if vae else None,
        schedule=schedule,
        prediction_type=_prediction_type(file),
    )


def _open_pixart(file: TensorFile, network: StateDict, vae: StateDict) -> ModelFiles:
    config = pixart_config(network)
    check_supported("pixart", config)
    kept = {name: weight for name, weight in network.items() if name not in _NOT_IN_DIFFUSERS}
    return ModelFiles(
        family="pixart",
        read_network=lambda: build_network("pixart", config, kept),
        read_text_encoder=None,  # T5 is larger than all the rest, and never in such a file
        read_vae=(lambda: build_vae(vae_config(vae), vae)) if vae else None,
        schedule=_PIXART_SCHEDULE,
        prediction_type=_prediction_type(file),
    )


def _read_clip(weights: StateDict, *, sd2: bool) -> CLIPTextModel:
    """CLIP from weights under transformers' names."""
    named = {text_encoder_rename(name): weight for name, weight in weights.items()}
    layers = count_numbered(named, "text_model.encoder.layers.{}.layer_norm1.weight")
    embedding = named["text_model.embeddings.token_embedding.weight"]
    return build_clip(clip_config(embedding, layers=layers, sd2=sd2), named)


def _read_open_clip(weights: StateDict) -> CLIPTextModel:
    """CLIP from weights under OpenCLIP's names, as in Stable Diffusion 2's files."""
    layers = count_numbered(weights, "transformer.resblocks.{}.ln_1.weight")
    used = layers if layers == _OPEN_CLIP_LAYERS - 1 else layers - 1
    unused = ("text_projection", f"transformer.resblocks.{used}.")
    kept = {name: weight for name, weight in weights.items() if not name.startswith(unused)}
    return build_clip(clip_config(weights["token_embedding.weight"], layers=used, sd2=True), kept, open_clip=True)


def _read_projected_clip(weights: StateDict) -> CLIPTextModelWithProjection:
    """CLIP with its projection, from weights under OpenCLIP's names, as in Stable Diffusion XL's files."""
    layers = count_numbered(weights, "transformer.resblocks.{}.ln_1.weight")
    projection = weights["text_projection"]  # (width, P): OpenCLIP multiplies from the left
    config = clip_config(weights["token_embedding.weight"], layers=layers, sd2=True)
    named = weights | {"text_projection": projection.T}
    return build_clip(config | {"projection_dim": projection.shape[1]}, named, open_clip=True, projected=True)


def _prediction_type(file: TensorFile, *, sd2: bool = False) -> str:
    stated = file.metadata.get("modelspec.prediction_type", "v" if _V_MARKER in file.names else "")
    if stated in _PREDICTIONS:
        return _PREDICTIONS[stated]
    if sd2:
        log.warning(
            "%s does not state its prediction type; assuming epsilon, as in Stable Diffusion 2.1-base (512 px). "
            "For the 768 px models set teacher.prediction_type to v_prediction",
            file.path.name,
        )
    return "epsilon"


def _schedule(file: TensorFile) -> Schedule:
    """Stable Diffusion's noise schedule, which the file's, if it has one, must be up to rounding to half precision."""
    schedule, sigmas = Schedule(), stored_sigmas(file)
    ours = DDPMScheduler(**schedule.model_dump()).alphas_cumprod
    if sigmas is not None and not torch.allclose(1 / (sigmas.double() ** 2 + 1), ours.double(), rtol=0.01, atol=0.0):
        raise ValueError("its alphas_cumprod are not Stable Diffusion's; other noise schedules are not supported")
    return schedule


def _with_prefix(prefix: str, weights: StateDict) -> StateDict:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
