"""Single files that others made: Stable Diffusion 1 and 2 in the original layout, and PixArt's transformer."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from snoopi_core.formats.checkpoint import Schedule
from snoopi_core.formats.harmless_keys import is_harmless
from snoopi_core.formats.joined_layouts import (
    open_clip_from_single_file,
    pixart_from_single_file,
    pixart_to_single_file,
)
from snoopi_core.formats.layouts import from_single_file, text_encoder_rename, unet_rename, vae_rename
from snoopi_core.formats.schedule import stored_sigmas
from snoopi_core.formats.tensor_file import StateDict, TensorFile
from training.models.clip_tokenizer import EOS, clip_tokenizer
from training.models.loading.infer_config import clip_config, count, pixart_config, unet_config, vae_config
from training.models.loading.source import SUPPORTED, Source, Text, build, check_supported, naming

log = logging.getLogger(__name__)

_NETWORK, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP, _OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
_OPEN_CLIP_LAYERS = 24  # Stable Diffusion 2 reads the last but one, and some files leave the last out
_PREDICTIONS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
_V_MARKER, _ZERO_SNR_MARKER = "v_pred", "ztsnr"  # ComfyUI's
# A table of positions for one size, and the null prompt, in whose place pipelines encode an empty one.
_NOT_IN_DIFFUSERS = ("pos_embed", "y_embedder.y_embedding")
_PIXART_SCHEDULE = Schedule(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)


def open_single_file(file: TensorFile) -> Source:
    """Recognise a file by its weights' names.

    Raises:
        ValueError: it is none of the supported models, or only a part of one; says which file and what it holds.
    """
    with naming(file.path.name):
        names = [name for name in file.names if not is_harmless(name) and name != _V_MARKER]
        weights = file.read(names)  # mapped into memory, not read
        network = _below(_NETWORK, weights) or weights
        if any("lora_" in name for name in names):
            raise ValueError("it is a LoRA, which is no model by itself")
        if _ZERO_SNR_MARKER in names:
            raise ValueError("its noise schedule ends in pure noise, where x0 cannot be had from eps; not supported")
        if "adaln_single.linear.weight" in network:
            network = pixart_to_single_file(network)
        if "t_block.1.weight" in network:
            return _open_pixart(file, network, _below(_VAE, weights))
        if "label_emb.0.0.weight" in network:
            raise ValueError(f"it is Stable Diffusion XL, or made after it. {SUPPORTED}")
        if "input_blocks.0.0.weight" in network:
            return _open_stable_diffusion(file, network, weights)
        hint = "; or give the diffusers folder that it belongs to" if "conv_in.weight" in network else ""
        raise ValueError(f"its network is not known (first weights: {', '.join(list(network)[:3])}). {SUPPORTED}{hint}")


def _open_stable_diffusion(file: TensorFile, network: StateDict, weights: StateDict) -> Source:
    config = unet_config(network)
    check_supported("unet", config)
    second = config["use_linear_projection"]
    clip, open_clip, vae = (_below(prefix, weights) for prefix in (_CLIP, _OPEN_CLIP, _VAE))
    if others := len(weights) - sum(map(len, (network, clip, open_clip, vae))):
        raise ValueError(f"it holds {others} weight(s) that are none of Stable Diffusion's. {SUPPORTED}")
    schedule = Schedule()
    _check_schedule(file, schedule)
    read_text = _open_clip_reader(open_clip) if open_clip else _clip_reader(clip, second=second)
    return Source(
        family="unet",
        network=lambda: build(
            lambda: UNet2DConditionModel(**config),
            lambda module: from_single_file(network, module.state_dict(), unet_rename(module.config)),
        ),
        text=read_text if clip or open_clip else None,
        vae=(lambda: _read_vae(vae)) if vae else None,
        schedule=schedule,
        prediction_type=_prediction_type(file, second=second),
    )


def _open_pixart(file: TensorFile, network: StateDict, vae: StateDict) -> Source:
    config = pixart_config(network)
    check_supported("pixart", config)
    kept = {name: weight for name, weight in network.items() if name not in _NOT_IN_DIFFUSERS}
    return Source(
        family="pixart",
        network=lambda: build(
            lambda: PixArtTransformer2DModel(**config),
            lambda module: pixart_from_single_file(kept, module.state_dict()),
        ),
        text=None,  # T5 is larger than all the rest, and in no such file
        vae=(lambda: _read_vae(vae)) if vae else None,
        schedule=_PIXART_SCHEDULE,
        prediction_type=_prediction_type(file),
    )


def _clip_reader(weights: StateDict, *, second: bool) -> Callable[[torch.dtype], Text]:
    """CLIP under transformers' names."""

    def read(dtype: torch.dtype) -> Text:
        named = {text_encoder_rename(name): weight for name, weight in weights.items()}
        layers = count(named, "text_model.encoder.layers.{}.layer_norm1.weight")
        config = clip_config(named["text_model.embeddings.token_embedding.weight"], layers=layers, second=second)
        encoder = build(
            lambda: CLIPTextModel(CLIPTextConfig(**config)),
            lambda module: from_single_file(named, module.state_dict(), text_encoder_rename),
        )
        return encoder, clip_tokenizer("!" if second else EOS)

    return read


def _open_clip_reader(weights: StateDict) -> Callable[[torch.dtype], Text]:
    """CLIP under OpenCLIP's names, as Stable Diffusion 2's files have it."""

    def read(dtype: torch.dtype) -> Text:
        layers = count(weights, "transformer.resblocks.{}.ln_1.weight")
        used = layers if layers == _OPEN_CLIP_LAYERS - 1 else layers - 1
        unused = ("text_projection", f"transformer.resblocks.{used}.")
        config = clip_config(weights["token_embedding.weight"], layers=used, second=True)
        encoder = build(
            lambda: CLIPTextModel(CLIPTextConfig(**config)),
            lambda module: open_clip_from_single_file(
                {name: weight for name, weight in weights.items() if not name.startswith(unused)}, module.state_dict()
            ),
        )
        return encoder, clip_tokenizer("!")

    return read


def _read_vae(weights: StateDict) -> AutoencoderKL:
    return build(
        lambda: AutoencoderKL(**vae_config(weights)),
        lambda module: from_single_file(weights, module.state_dict(), vae_rename(module.config)),
    )


def _prediction_type(file: TensorFile, *, second: bool = False) -> str:
    said = file.metadata.get("modelspec.prediction_type", "v" if _V_MARKER in file.names else "")
    if said in _PREDICTIONS:
        return _PREDICTIONS[said]
    if second:
        log.warning(
            "%s does not say what it predicts; taken as epsilon, as Stable Diffusion 2.1-base (512 px) does. "
            "For the 768 px models set teacher.prediction_type to v_prediction",
            file.path.name,
        )
    return "epsilon"


def _check_schedule(file: TensorFile, schedule: Schedule) -> None:
    """The file's own noise schedule, where it has one, is the published one; half precision has rounded some."""
    sigmas = stored_sigmas(file)
    if sigmas is None:
        return
    ours = DDPMScheduler(**schedule.model_dump()).alphas_cumprod
    if not torch.allclose(1 / (sigmas.double() ** 2 + 1), ours.double(), rtol=0.01, atol=0.0):
        raise ValueError("its alphas_cumprod are not Stable Diffusion's; other noise schedules are not supported")


def _below(prefix: str, weights: StateDict) -> StateDict:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
