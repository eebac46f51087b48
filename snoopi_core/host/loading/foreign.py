"""Build the host's objects for recognised third-party files."""

from __future__ import annotations

import functools
import logging
import re

import comfy.model_base
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ...formats.tensor_file import StateDict, readable
from .build import build_vae, make_patcher
from .check_weights import check_numbers, check_weights, expected_weights, summarize_problems
from .recognise import V_MARKER, Foreign

_ALPHA_TOKENS = 120
_LAYER = re.compile(r"\b(layers|resblocks)\.\d+")
_VAE = {  # config of all these models, in diffusers' terms
    "block_out_channels": [128, 256, 512, 512],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
}
# The projection of the pooled output; only clip_g's is used.
_PROJECTION = "transformer.text_projection.weight"
_OPTIONAL_TEXT = ("text_projection.weight", "logit_scale")

LATENTS = {
    "SD1.x": comfy.supported_models.SD15.latent_format,
    "SDXL": comfy.supported_models.SDXL.latent_format,
}


def foreign_model(found: Foreign, latents: str = "auto", *, disable_dynamic: bool = False) -> ModelPatcher:
    """The diffusion model, with the kind of prediction that the host recognises.

    Args:
        latents: `auto`, or one of `LATENTS` for PixArt files that do not say which VAE they need.
    """
    config = found.config
    if latents != "auto":
        config.latent_format = LATENTS[latents]()
    elif found.kind == "PixArtSigma" and config.unet_config.get("model_max_length") == _ALPHA_TOKENS:
        # The host assumes sigma for any PixArt without size conditions, but sigma has 300 tokens.
        config.latent_format = LATENTS["SD1.x"]()
    if V_MARKER in found.markers and not isinstance(config, comfy.supported_models.SDXL):
        # The host writes this marker into every v-prediction model that it saves, but reads it for SDXL only.
        config.model_type = lambda *_, **__: comfy.model_base.ModelType.V_PREDICTION
    patcher = make_patcher(config, found.network, markers=found.markers, disable_dynamic=disable_dynamic)
    sampling = patcher.model.model_sampling
    if found.schedule is not None and not _same_schedule(sampling, found.schedule):
        sampling.set_sigmas(found.schedule)
        logging.info("%s: its own noise schedule is used", readable(found.file.path.name))
    return patcher


def foreign_clip(found: Foreign, *, disable_dynamic: bool = False) -> comfy.sd.CLIP | None:
    """The text encoders of a single file; None if it contains none.

    Raises:
        ValueError: weights that do not match the family's text encoders.
    """
    if not found.text:
        return None
    target, weights = convert_text(found)
    return comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data=weights,
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=weights,
        model_options={},
        disable_dynamic=disable_dynamic,
    )


def convert_text(found: Foreign) -> tuple[comfy.supported_models_base.ClipTarget, StateDict]:
    """The text encoder's weights under the host's names, after checking all of them.

    Raises:
        ValueError: as in `foreign_clip`.
    """
    check_numbers("text encoder", found.text)
    target = found.config.clip_target(state_dict=found.text)
    # The host's conversion silently drops keys with an unknown prefix.
    dropped = functools.cache(lambda key: not found.config.process_clip_state_dict({key: torch.empty(3, 1)}))
    unexpected = [key for key in found.text if dropped(_LAYER.sub(r"\1.0", key))]
    # Shapes first, as for the network: the conversion copies some weights.
    shapes = found.config.process_clip_state_dict(
        {key: torch.empty_like(weight, device="meta") for key, weight in found.text.items()}
    )
    dtype = comfy.utils.weight_dtype(shapes)
    build = functools.partial(target.clip, device="meta", dtype=dtype, model_options={})
    expected = expected_weights("text encoder", build)
    optional = [key for key in expected if key.endswith(_OPTIONAL_TEXT) and not key.endswith(f"clip_g.{_PROJECTION}")]
    check_weights("text encoder", shapes, expected, optional=optional, unexpected=unexpected)
    weights = found.config.process_clip_state_dict(dict(found.text))
    for key in optional:
        if key.endswith(_PROJECTION) and key not in weights:
            weights[key] = torch.eye(expected[key].shape[0], dtype=dtype)
    return target, weights


def foreign_vae(found: Foreign) -> comfy.sd.VAE | None:
    """The VAE of a single file; None if it contains none.

    Raises:
        ValueError: weights that do not match Stable Diffusion's VAE.
    """
    if not found.vae:
        return None
    return build_vae(_VAE, {key.partition(".")[2]: weight for key, weight in found.vae.items()})


def describe(found: Foreign, patcher: ModelPatcher) -> str:
    """What was recognised, for the log."""
    prediction = f"{patcher.model.model_type.name} prediction"
    parts = [f"recognised as {found.kind} ({found.layout})", prediction, "no recipe"]
    if found.harmless:
        parts.append(f"{len(found.harmless)} known harmless key(s) ignored: {summarize_problems(found.harmless)}")
    return ", ".join(parts)


def _same_schedule(sampling: torch.nn.Module, sigmas: torch.Tensor) -> bool:
    """Compare alpha^2 to 1 %, because files in half precision round their schedule."""
    if not hasattr(sampling, "sigmas") or len(sampling.sigmas) != len(sigmas):
        return False
    host, own = (1 / (values.double() ** 2 + 1) for values in (sampling.sigmas, sigmas))
    return bool(torch.allclose(host, own, rtol=0.01, atol=0.0))
