"""Build the host's objects for the parts of a checkpoint, at any size.

The host's own loaders recognise models by the published sizes. Here the sizes come from the file. The host's layers
start uninitialised and its loading is not strict, so every key and shape is first compared with a network on the meta
device. A config that does not match the weights therefore costs no memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import comfy.clip_model
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.pixart.pixartms import PixArtMS

from ...formats.architecture import text_arguments, unet_arguments, vae_arguments, vae_factor
from ...formats.architecture_pixart import pixart_arguments
from ...formats.checkpoint import Metadata, StateDict
from .attachment import set_metadata
from .check_weights import check_layers, check_weights, expected_weights
from .model_sampling import model_sampling, sampling_settings

_END_TOKEN = 49407  # CLIP's end token, which SD1.x also uses as padding
_HOST_LATENTS = (comfy.latent_formats.SD15(), comfy.latent_formats.SDXL())
_UNUSED_CAPTION = "y_embedder.y_embedding"  # used in training only; missing in diffusers' files


class CheckpointLatents(comfy.latent_formats.LatentFormat):
    """Scale and preview colours of a checkpoint's latents."""

    def __init__(self, metadata: Metadata) -> None:
        self.scale_factor = metadata.latent_scale
        self.latent_channels = metadata.unet["in_channels"]
        self.latent_rgb_factors = metadata.latent_rgb_factors and [list(row) for row in metadata.latent_rgb_factors]
        if metadata.vae is not None:
            self.spacial_downscale_ratio = vae_factor(metadata.vae)
        if self.latent_rgb_factors is None and (known := self._known_to_the_host()) is not None:
            self.latent_rgb_factors = known.latent_rgb_factors
            self.taesd_decoder_name = known.taesd_decoder_name

    def _known_to_the_host(self) -> comfy.latent_formats.LatentFormat | None:
        """The host's latent format with the same channels and scale, if any: the host can preview it."""
        for known in _HOST_LATENTS:
            same_shape = known.latent_channels == self.latent_channels
            same_shape &= known.spacial_downscale_ratio == self.spacial_downscale_ratio
            if same_shape and math.isclose(self.scale_factor, known.scale_factor, rel_tol=1e-4):
                return known
        return None


class ZeroPaddedTokenizer(comfy.sd1_clip.SDTokenizer):
    """The host's CLIP tokenizer with padding token 0, like its SD2.x tokenizer, which supports one size only."""

    def __init__(self, tokenizer_path: str | None = None, **settings: Any) -> None:
        super().__init__(tokenizer_path, pad_with_end=False, **settings)


class ZeroPaddedClipModel(comfy.sd1_clip.SDClipModel):
    """Pads the empty prompt, which the host uses for weighting words, with token 0 as well."""

    def __init__(self, **settings: Any) -> None:
        tokens = {"start": 49406, "end": _END_TOKEN, "pad": 0}
        super().__init__(special_tokens=tokens, return_projected_pooled=False, **settings)


def build_model(
    metadata: Metadata, weights: StateDict, *, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """Build the diffusion model.

    Raises:
        ValueError: a network that the host lacks, or weights that do not match it.
    """
    config = model_config(metadata)
    check_network(config, weights)
    weights = complete_network(config, weights)
    patcher = make_patcher(config, weights, disable_dynamic=disable_dynamic)
    patcher.model.model_sampling = model_sampling(metadata, config)
    set_metadata(patcher, metadata)
    return patcher


def check_network(
    config: comfy.supported_models_base.BASE, weights: StateDict, *, unexpected: Iterable[str] = ()
) -> None:
    """Compare the weights, which may be on the meta device, with the network that the host would build from `config`.

    Args:
        unexpected: names in the file that do not belong to the network.

    Raises:
        ValueError: as in `check_weights`.
    """
    arguments = config.unet_config
    is_pixart = "image_model" in arguments
    part, network = ("PixArt", PixArtMS) if is_pixart else ("UNet", UNetModel)
    check_layers(part, [arguments["depth"]] if is_pixart else _layers(arguments), weights)
    build = functools.partial(network, **arguments, device="meta", operations=comfy.ops.disable_weight_init)
    # PixArtMS needs a real device for some of its tensors.
    expected = expected_weights(part, build, set_default_device=not is_pixart)
    check_weights(part, weights, expected, optional=(_UNUSED_CAPTION,), unexpected=unexpected)


def complete_network(config: comfy.supported_models_base.BASE, weights: StateDict) -> StateDict:
    """Add zeros for a tensor that the host has but does not use at inference; it would stay uninitialised otherwise."""
    if "image_model" not in config.unet_config or _UNUSED_CAPTION in weights:
        return dict(weights)
    tokens = config.unet_config.get("model_max_length", 120)
    width = weights["y_embedder.y_proj.fc1.weight"].shape[1]
    return {**weights, _UNUSED_CAPTION: torch.zeros(tokens, width, dtype=comfy.utils.weight_dtype(weights))}


def make_patcher(
    config: comfy.supported_models_base.BASE,
    weights: StateDict,
    *,
    markers: Mapping[str, torch.Tensor] = MappingProxyType({}),
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """The host's patcher around a model of `config`, for weights that have been checked.

    Args:
        markers: keys of a file that tell the host the kind of prediction.
    """
    management = comfy.model_management
    device = management.get_torch_device()
    parameters = comfy.utils.calculate_parameters(weights)
    supported = list(config.supported_inference_dtypes)
    dtype = management.unet_dtype(
        model_params=parameters, supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(weights)
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    model = config.get_model({**weights, **markers}, "", device=management.unet_inital_load_device(parameters, dtype))
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=management.unet_offload_device())
    model.load_model_weights(dict(weights), "", assign=patcher.is_dynamic())
    return patcher


def build_clip(
    config: dict[str, Any], weights: StateDict, *, pad_token_id: int = _END_TOKEN, disable_dynamic: bool = False
) -> comfy.sd.CLIP:
    """Build the text encoder, in the file's dtype; the host always runs it in fp32.

    Raises:
        ValueError: a text encoder or a padding token that the host lacks, or weights that do not match.
    """
    arguments = text_arguments(config)
    if pad_token_id not in (0, _END_TOKEN):
        raise ValueError(
            f"its prompts are padded with token {pad_token_id}, expected {_END_TOKEN} (SD1.x) or 0 (SD2.x), which "
            "ComfyUI supports"
        )
    dtype = comfy.utils.weight_dtype(weights)
    # Unlike transformers' class, the host's has a projection of the pooled output; Stable Diffusion 1 does not use it.
    projection, width = "text_projection.weight", arguments["hidden_size"]
    part = "text encoder"
    check_layers(part, [arguments["num_hidden_layers"]], weights)
    expected = expected_weights(
        part, lambda: comfy.clip_model.CLIPTextModel(arguments, dtype, "meta", comfy.ops.manual_cast)
    )
    check_weights(part, weights, expected, optional=(projection,))
    weights = {projection: torch.eye(width, dtype=dtype), **weights}
    tokenizer, options = comfy.sd1_clip.SD1Tokenizer, {"clip_l_model_config": arguments, "dtype": dtype}
    if pad_token_id == 0:
        tokenizer = functools.partial(tokenizer, tokenizer=ZeroPaddedTokenizer)
        options["clip_l_class"] = ZeroPaddedClipModel
    return comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(tokenizer, comfy.sd1_clip.SD1ClipModel),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=[weights],
        model_options=options,
        disable_dynamic=disable_dynamic,
    )


def build_vae(config: dict[str, Any], weights: StateDict) -> comfy.sd.VAE:
    """Build the VAE.

    Raises:
        ValueError: a VAE that the host lacks, or weights that do not match.
    """
    arguments = vae_arguments(config)
    check_layers("VAE", [arguments["ddconfig"]["num_res_blocks"]], weights)
    check_weights("VAE", weights, expected_weights("VAE", lambda: AutoencoderKL(**arguments)))
    vae = comfy.sd.VAE(sd=weights, config={"params": arguments})
    vae.latent_channels = config["latent_channels"]
    vae.downscale_ratio = vae.upscale_ratio = vae_factor(config)
    return vae


def network_arguments(metadata: Metadata) -> dict[str, Any]:
    """Arguments of the host's class for the network.

    Raises:
        ValueError: a network that the host lacks.
    """
    return pixart_arguments(metadata.unet) if metadata.family == "pixart" else unet_arguments(metadata.unet)


def model_config(metadata: Metadata) -> comfy.supported_models_base.BASE:
    """The host's config object for the network.

    Raises:
        ValueError: a network that the host lacks.
    """
    arguments = network_arguments(metadata)
    heads = {}
    if metadata.family == "pixart":
        base = comfy.supported_models.PixArtAlpha
    else:
        heads = {key: arguments.pop(key) for key in ("num_heads", "num_head_channels")}
        if arguments["adm_in_channels"] is not None:
            base = comfy.supported_models.SDXL
        elif arguments["use_linear_in_transformer"]:
            base = comfy.supported_models.SD20
        else:
            base = comfy.supported_models.SD15
        if base is comfy.supported_models.SD20 or metadata.unet.get("upcast_attention"):
            heads["attn_precision"] = torch.float32

    class CheckpointConfig(base):
        unet_extra_config = heads
        latent_format = staticmethod(lambda: CheckpointLatents(metadata))

        def model_type(self, state_dict: StateDict, prefix: str = "") -> comfy.model_base.ModelType:
            is_v = metadata.prediction_type == "v_prediction"
            return comfy.model_base.ModelType.V_PREDICTION if is_v else comfy.model_base.ModelType.EPS

        def inpaint_model(self) -> bool:
            return False  # the host assumes this for any UNet with more than four channels

    CheckpointConfig.sampling_settings = sampling_settings(metadata.schedule)
    return CheckpointConfig(arguments)


def _layers(arguments: dict[str, Any]) -> list[int]:
    counts = ("num_res_blocks", "transformer_depth", "transformer_depth_output")
    return [n for key in counts for n in arguments[key]] + [arguments["transformer_depth_middle"]]
