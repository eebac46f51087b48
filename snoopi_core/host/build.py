"""The host's objects for the parts of a checkpoint, at any size.

The host's own loaders recognise a model by the sizes of the published ones. Here the sizes come from the file. Layers
of the host start uninitialised and its loading is not strict, so every key and shape is compared first, with a network
on the meta device: what a config claims costs no memory until the weights have borne it out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
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

from ..checkpoint import Metadata, StateDict
from .architecture import text_arguments, unet_arguments, vae_arguments, vae_factor
from .attachment import set_metadata
from .sampling import model_sampling, sampling_settings

_END_TOKEN = 49407  # CLIP's end mark, with which SD1.x fills prompts up
_HOST_LATENTS = comfy.latent_formats.SD15()
# What the host raises at arguments that it cannot use.
_CANNOT_BUILD = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class CheckpointLatents(comfy.latent_formats.LatentFormat):
    """Scale and preview colours of a checkpoint's latents."""

    def __init__(self, metadata: Metadata) -> None:
        self.scale_factor = metadata.latent_scale
        self.latent_channels = metadata.unet["in_channels"]
        self.latent_rgb_factors = metadata.latent_rgb_factors and [list(row) for row in metadata.latent_rgb_factors]
        if metadata.vae is not None:
            self.spacial_downscale_ratio = vae_factor(metadata.vae)
        if self.latent_rgb_factors is None and self._are_the_hosts():
            self.latent_rgb_factors = _HOST_LATENTS.latent_rgb_factors
            self.taesd_decoder_name = _HOST_LATENTS.taesd_decoder_name

    def _are_the_hosts(self) -> bool:
        """Whether these look like Stable Diffusion 1's and 2's latents, which the host can preview by itself."""
        shape = (self.latent_channels, self.spacial_downscale_ratio)
        return shape == (_HOST_LATENTS.latent_channels, _HOST_LATENTS.spacial_downscale_ratio) and math.isclose(
            self.scale_factor, _HOST_LATENTS.scale_factor, rel_tol=1e-4
        )


class ZeroPaddedTokenizer(comfy.sd1_clip.SDTokenizer):
    """The host's CLIP tokenizer, filling prompts up with token 0; as its tokenizer of SD2.x, which is for one size."""

    def __init__(self, tokenizer_path: str | None = None, **settings: Any) -> None:
        super().__init__(tokenizer_path, pad_with_end=False, **settings)


class ZeroPaddedClipModel(comfy.sd1_clip.SDClipModel):
    """The empty prompt, from which the host weighs words, is padded as every other."""

    def __init__(self, **settings: Any) -> None:
        tokens = {"start": 49406, "end": _END_TOKEN, "pad": 0}
        super().__init__(special_tokens=tokens, return_projected_pooled=False, **settings)


def build_model(
    metadata: Metadata, weights: StateDict, *, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The diffusion model.

    Raises:
        ValueError: a network that the host does not have, or weights that are not this network's.
    """
    management = comfy.model_management
    config = _model_config(metadata)
    _check_weights("UNet", weights, _layers(config.unet_config), lambda: _meta_unet(config.unet_config))
    device = management.get_torch_device()
    parameters = comfy.utils.calculate_parameters(weights)
    supported = list(config.supported_inference_dtypes)
    dtype = management.unet_dtype(
        model_params=parameters, supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(weights)
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    model = config.get_model(weights, "", device=management.unet_inital_load_device(parameters, dtype))
    model.model_sampling = model_sampling(metadata, config)

    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=management.unet_offload_device())
    model.load_model_weights(dict(weights), "", assign=patcher.is_dynamic())
    set_metadata(patcher, metadata)
    return patcher


def build_clip(
    config: dict[str, Any], weights: StateDict, *, pad_token_id: int = _END_TOKEN, disable_dynamic: bool = False
) -> comfy.sd.CLIP:
    """The text encoder, in the dtype of the file; the host computes it in fp32 whatever that is.

    Raises:
        ValueError: a text encoder or a padding that the host does not have, or weights that are not this one's.
    """
    arguments = text_arguments(config)
    if pad_token_id not in (0, _END_TOKEN):
        raise ValueError(
            f"its prompts are padded with token {pad_token_id}; the host pads with {_END_TOKEN}, as SD1.x, or with 0, "
            "as SD2.x"
        )
    dtype = comfy.utils.weight_dtype(weights)
    # The host's class projects the pooled output, which transformers' does not; Stable Diffusion 1 never uses it.
    projection, width = "text_projection.weight", arguments["hidden_size"]
    _check_weights(
        "text encoder",
        {projection: torch.empty(width, width, device="meta"), **weights},
        [arguments["num_hidden_layers"]],
        lambda: comfy.clip_model.CLIPTextModel(arguments, dtype, "meta", comfy.ops.manual_cast),
    )
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
    """The VAE.

    Raises:
        ValueError: a VAE that the host does not have, or weights that are not this one's.
    """
    arguments = vae_arguments(config)
    _check_weights("VAE", weights, [arguments["ddconfig"]["num_res_blocks"]], lambda: AutoencoderKL(**arguments))
    vae = comfy.sd.VAE(sd=weights, config={"params": arguments})
    vae.latent_channels = config["latent_channels"]
    vae.downscale_ratio = vae.upscale_ratio = vae_factor(config)
    return vae


def _model_config(metadata: Metadata) -> comfy.supported_models_base.BASE:
    arguments = unet_arguments(metadata.unet)
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
            return False  # the host takes any UNet with more than four channels for one

    CheckpointConfig.sampling_settings = sampling_settings(metadata.schedule)
    return CheckpointConfig(arguments)


def _layers(arguments: dict[str, Any]) -> list[int]:
    counts = ("num_res_blocks", "transformer_depth", "transformer_depth_output")
    return [n for key in counts for n in arguments[key]] + [arguments["transformer_depth_middle"]]


def _meta_unet(arguments: dict[str, Any]) -> UNetModel:
    return UNetModel(**arguments, device="meta", operations=comfy.ops.disable_weight_init)


def _check_weights(part: str, weights: StateDict, layers: list[int], build: Callable[[], torch.nn.Module]) -> None:
    """Compare every key and shape with those that the config implies; nothing of the network is allocated.

    Raises:
        ValueError: they differ, or the host cannot build what the config says.
    """
    if sum(layers) > len(weights):  # even without memory, a million layers take their time
        raise ValueError(f"{part} weights and config do not match: {sum(layers)} layers, {len(weights)} tensors")
    try:
        with torch.device("meta"):
            expected = build().state_dict()
    except _CANNOT_BUILD as error:
        raise ValueError(f"the host cannot build a {part} of this config ({type(error).__name__}: {error})") from error
    problems = [f"missing {key}" for key in expected if key not in weights]
    problems += [f"not expected {key}" for key in weights if key not in expected]
    problems += [
        f"{key} has shape {tuple(weight.shape)}, expected {tuple(expected[key].shape)}"
        for key, weight in weights.items()
        if key in expected and weight.shape != expected[key].shape
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{part} weights and config do not match: {'; '.join(problems[:5])}{more}")
