"""The host's objects for the parts of a checkpoint, at any size.

The host's own loaders recognise a model by the sizes of the published ones. Here the sizes come from the file. Layers
of the host start uninitialised and its loading is not strict, so every key and shape is compared first.
"""

from __future__ import annotations

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

from ..checkpoint import Metadata, StateDict
from .architecture import text_arguments, unet_arguments, vae_arguments, vae_factor
from .attachment import set_metadata
from .sampling import model_sampling, sampling_settings


class CheckpointLatents(comfy.latent_formats.LatentFormat):
    """Scale and preview colours of a checkpoint's latents."""

    def __init__(self, metadata: Metadata) -> None:
        self.scale_factor = metadata.latent_scale
        self.latent_channels = metadata.unet["in_channels"]
        self.latent_rgb_factors = metadata.latent_rgb_factors and [list(row) for row in metadata.latent_rgb_factors]
        if metadata.vae is not None:
            self.spacial_downscale_ratio = vae_factor(metadata.vae)


def build_model(
    metadata: Metadata, weights: StateDict, *, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The diffusion model.

    Raises:
        ValueError: a network that the host does not have, or weights that are not this network's.
    """
    management = comfy.model_management
    config = _model_config(metadata)
    device = management.get_torch_device()
    parameters = comfy.utils.calculate_parameters(weights)
    supported = list(config.supported_inference_dtypes)
    dtype = management.unet_dtype(
        model_params=parameters, supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(weights)
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    model = config.get_model(weights, "", device=management.unet_inital_load_device(parameters, dtype))
    _check_weights("UNet", weights, model.diffusion_model)
    model.model_sampling = model_sampling(metadata, config)

    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=management.unet_offload_device())
    model.load_model_weights(dict(weights), "", assign=patcher.is_dynamic())
    set_metadata(patcher, metadata)
    return patcher


def build_clip(config: dict[str, Any], weights: StateDict, *, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The text encoder, in the dtype of the file; the host computes it in fp32 whatever that is.

    Raises:
        ValueError: a text encoder that the host does not have, or weights that are not this one's.
    """
    arguments = text_arguments(config)
    dtype = comfy.utils.weight_dtype(weights)
    expected = comfy.clip_model.CLIPTextModel(arguments, dtype, "meta", comfy.ops.manual_cast)
    # The host's class projects the pooled output, which transformers' does not; Stable Diffusion 1 never uses it.
    weights = {"text_projection.weight": torch.eye(arguments["hidden_size"], dtype=dtype), **weights}
    _check_weights("text encoder", weights, expected)
    return comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=[weights],
        model_options={"clip_l_model_config": arguments, "dtype": dtype},
        disable_dynamic=disable_dynamic,
    )


def build_vae(config: dict[str, Any], weights: StateDict) -> comfy.sd.VAE:
    """The VAE.

    Raises:
        ValueError: a VAE that the host does not have, or weights that are not this one's.
    """
    arguments = vae_arguments(config)
    with torch.device("meta"):
        expected = AutoencoderKL(**arguments)
    _check_weights("VAE", weights, expected)
    vae = comfy.sd.VAE(sd=weights, config={"params": vae_arguments(config)})
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


def _check_weights(part: str, weights: StateDict, module: torch.nn.Module) -> None:
    expected = module.state_dict()
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
