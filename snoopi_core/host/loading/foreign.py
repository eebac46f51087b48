"""Files that others made: Stable Diffusion 1, 2, XL and PixArt, in one file or in diffusers' layout.

The host recognises the network and converts its names; then every key and shape is compared, as for our own files,
because the host's conversion leaves out what it does not know. Known harmless keys (published.py) are said in the log.
"""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass, field

import comfy.model_base
import comfy.model_detection
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ...formats.harmless_keys import is_harmless
from ...formats.joined_layouts import pixart_location, pixart_to_single_file
from ...formats.schedule import stored_sigmas
from ...formats.tensor_file import StateDict, TensorFile, readable
from .build import build_vae, check_network, complete_network, make_patcher
from .check_weights import CANNOT_BUILD, check_numbers, check_weights, expected_weights, listed

_PREFIX = "model.diffusion_model."
_TEXT_PREFIXES = ("cond_stage_model.", "conditioner.", "text_encoders.")
_VAE_PREFIXES = ("first_stage_model.", "vae.")
# What a file says of its prediction, and the host asks for.
_V_MARKER = "v_pred"
_LAYER = re.compile(r"\b(layers|resblocks)\.\d+")
_MARKERS = frozenset({_V_MARKER, "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min"})
_KNOWN = ("SD15", "SD20", "SDXL", "SDXLRefiner", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B")
_PIXART = ("PixArtAlpha", "PixArtSigma")
_FAMILIES = tuple(getattr(comfy.supported_models, name) for name in _KNOWN + _PIXART)
_OPENS = "PG-SB Loader opens SD1.x, SD2.x, SDXL and PixArt"
_MOST_NETWORK_TENSORS, _MOST_CAPTION_TOKENS = 5000, 4096
_ALPHA_TOKENS = 120
_UNUSED_POSITIONS = "pos_embed"  # of PixArt's first files; the host computes positions for the size at hand
_VAE = {  # of all these models, in diffusers' words
    "block_out_channels": [128, 256, 512, 512],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
}
# A projection of the pooled output, which only clip_g's is used of.
_PROJECTION = "transformer.text_projection.weight"
_SPARE_TEXT = ("text_projection.weight", "logit_scale")

LATENTS = {
    "SD1.x": comfy.supported_models.SD15.latent_format,
    "SDXL": comfy.supported_models.SDXL.latent_format,
}


@dataclass(kw_only=True)
class Foreign:
    """A file whose network has been recognised and compared; nothing of the host's has been built yet."""

    file: TensorFile
    config: comfy.supported_models_base.BASE
    layout: str
    network: StateDict
    markers: StateDict = field(default_factory=dict)
    schedule: torch.Tensor | None = None
    text: StateDict = field(default_factory=dict)
    vae: StateDict = field(default_factory=dict)
    harmless: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return type(self.config).__name__

    @property
    def guesses_latents(self) -> bool:
        """PixArt-alpha 512 differs from PixArt-sigma by the latents alone, and by a table that diffusers leaves out."""
        return self.kind == "PixArtSigma" and "model_max_length" not in self.config.unet_config


def recognise(file: TensorFile) -> Foreign:
    """Find out what a file holds, and compare its network with the host's, key by key.

    Weights stay in the file: only their shapes are looked at, whatever the size of the model.

    Raises:
        ValueError: none of the known networks, or keys that are missing, left over or of another shape.
    """
    harmless = [name for name in file.names if is_harmless(name)]
    rest = set(file.names).difference(harmless)
    single = any(name.startswith(_PREFIX) for name in rest)
    text = [name for name in rest if single and name.startswith(_TEXT_PREFIXES)]
    vae = [name for name in rest if single and name.startswith(_VAE_PREFIXES)]
    markers = _MARKERS.intersection(rest)
    rest.difference_update(text, vae, markers)
    outside = sorted(name for name in rest if single and not name.startswith(_PREFIX))
    prefix = _PREFIX if single else ""
    names = [name for name in file.names if name in rest and name.startswith(prefix)]
    if len(names) > _MOST_NETWORK_TENSORS:
        raise ValueError(f"its network has {len(names)} tensors, expected at most {_MOST_NETWORK_TENSORS}. {_OPENS}")
    check_numbers("network", names)
    weights = {name.removeprefix(prefix): weight for name, weight in file.read(names).items()}
    # Shapes alone first: nothing is allocated for what a file merely claims.
    shapes = {name: torch.empty_like(weight, device="meta") for name, weight in weights.items()}
    config, layout = _detect(shapes)
    shapes, left_over = _to_host_names(shapes, config, layout)
    if _UNUSED_POSITIONS in shapes and "image_model" in config.unet_config:
        harmless.append(prefix + _UNUSED_POSITIONS)
        del shapes[_UNUSED_POSITIONS], weights[_UNUSED_POSITIONS]
    outside += sorted(markers.difference(_MARKERS if isinstance(config, comfy.supported_models.SDXL) else {_V_MARKER}))
    check_network(config, shapes, left_over=left_over + outside)
    found = Foreign(
        file=file,
        config=config,
        layout="single file" if single else layout,
        network=complete_network(config, _to_host_names(weights, config, layout)[0]),
        markers=file.read(markers),
        text=file.read(text),
        vae=file.read(vae),
        harmless=sorted(harmless),
    )
    found.schedule = stored_sigmas(file)
    try:
        config.model_type({**found.network, **found.markers}, "")
    except CANNOT_BUILD as error:
        raise ValueError(f"what it predicts cannot be made out ({type(error).__name__}: {error})") from error
    return found


def foreign_model(found: Foreign, latents: str = "auto", *, disable_dynamic: bool = False) -> ModelPatcher:
    """The diffusion model, predicting what the host takes it to predict.

    Args:
        latents: `auto`, or one of `LATENTS`, for a PixArt that does not say which VAE it is for.
    """
    config = found.config
    if latents != "auto":
        config.latent_format = LATENTS[latents]()
    elif found.kind == "PixArtSigma" and config.unet_config.get("model_max_length") == _ALPHA_TOKENS:
        # The host takes any PixArt without size conditions for sigma; sigma has 300 tokens.
        config.latent_format = LATENTS["SD1.x"]()
    if _V_MARKER in found.markers and not isinstance(config, comfy.supported_models.SDXL):
        # The host writes this mark into every v-prediction model that it saves, and reads it of SDXL only.
        config.model_type = lambda *_, **__: comfy.model_base.ModelType.V_PREDICTION
    patcher = make_patcher(config, found.network, markers=found.markers, disable_dynamic=disable_dynamic)
    sampling = patcher.model.model_sampling
    if found.schedule is not None and not _same_schedule(sampling, found.schedule):
        sampling.set_sigmas(found.schedule)
        logging.info("%s: its own noise schedule is used", readable(found.file.path.name))
    return patcher


def foreign_clip(found: Foreign, *, disable_dynamic: bool = False) -> comfy.sd.CLIP | None:
    """The text encoders of a single file; None where it holds none.

    Raises:
        ValueError: weights that are not those of the family's text encoders.
    """
    if not found.text:
        return None
    target, weights = converted_text(found)
    return comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data=weights,
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=weights,
        model_options={},
        disable_dynamic=disable_dynamic,
    )


def converted_text(found: Foreign) -> tuple[comfy.supported_models_base.ClipTarget, StateDict]:
    """Text encoder weights under the host's names, each of them compared.

    Raises:
        ValueError: see `foreign_clip`.
    """
    check_numbers("text encoder", found.text)
    target = found.config.clip_target(state_dict=found.text)
    # The host's conversion keeps what it knows the prefix of, and drops the rest without a word.
    dropped = functools.cache(lambda key: not found.config.process_clip_state_dict({key: torch.empty(3, 1)}))
    left_over = [key for key in found.text if dropped(_LAYER.sub(r"\1.0", key))]
    # Shapes alone first, as with the network: the conversion copies some weights.
    shapes = found.config.process_clip_state_dict(
        {key: torch.empty_like(weight, device="meta") for key, weight in found.text.items()}
    )
    dtype = comfy.utils.weight_dtype(shapes)
    build = functools.partial(target.clip, device="meta", dtype=dtype, model_options={})
    expected = expected_weights("text encoder", build)
    spare = [key for key in expected if key.endswith(_SPARE_TEXT) and not key.endswith(f"clip_g.{_PROJECTION}")]
    check_weights("text encoder", shapes, expected, spare=spare, left_over=left_over)
    weights = found.config.process_clip_state_dict(dict(found.text))
    for key in spare:
        if key.endswith(_PROJECTION) and key not in weights:
            weights[key] = torch.eye(expected[key].shape[0], dtype=dtype)
    return target, weights


def foreign_vae(found: Foreign) -> comfy.sd.VAE | None:
    """The VAE of a single file; None where it holds none.

    Raises:
        ValueError: weights that are not those of Stable Diffusion's VAE.
    """
    if not found.vae:
        return None
    return build_vae(_VAE, {key.partition(".")[2]: weight for key, weight in found.vae.items()})


def describe(found: Foreign, patcher: ModelPatcher) -> str:
    """What was recognised and taken, for the log."""
    said = [f"recognised as {found.kind} ({found.layout})", f"{patcher.model.model_type.name} prediction"]
    said.append("no recipe")
    if found.harmless:
        said.append(f"{len(found.harmless)} known harmless key(s) left out: {listed(found.harmless)}")
    return ", ".join(said)


def _detect(shapes: StateDict) -> tuple[comfy.supported_models_base.BASE, str]:
    """The host's config and the layout: bare (the names of single files) or diffusers."""
    layout, config = "bare", None
    try:
        if "conv_in.weight" in shapes and "time_embedding.linear_1.weight" in shapes:
            layout, config = "diffusers", comfy.model_detection.model_config_from_diffusers_unet(shapes)
        elif "adaln_single.linear.weight" in shapes and "pos_embed.proj.bias" in shapes:
            layout, (bare, _) = "diffusers", _pixart_names(shapes)
            config = comfy.model_detection.model_config_from_unet(bare, "")
        elif "input_blocks.0.0.weight" in shapes or "t_block.1.weight" in shapes:
            config = comfy.model_detection.model_config_from_unet(shapes, "")
    except CANNOT_BUILD as error:
        raise ValueError(f"its network cannot be recognised ({type(error).__name__}: {error}). {_OPENS}") from error
    if config is None:
        some = listed(sorted(shapes)[:3]) or "none"
        if any("lora_" in name for name in shapes):
            raise ValueError(f"it is a LoRA (first keys: {some}): put it into models/loras and choose it as lora_name")
        if "encoder.conv_in.weight" in shapes:
            raise ValueError(f"it is a VAE (first keys: {some}): open it with the host's Load VAE node")
        raise ValueError(
            f"its network is none that the host knows by these keys and shapes (first keys: {some}). {_OPENS}, as a "
            "single file or a diffusers UNet or transformer; others are opened by the host's own Load Checkpoint node"
        )
    if type(config) not in _FAMILIES:
        raise ValueError(f"its network is {type(config).__name__}. {_OPENS}; use the host's own loaders for others")
    if (tokens := config.unet_config.get("model_max_length", 0)) > _MOST_CAPTION_TOKENS:
        raise ValueError(f"it takes prompts of {tokens} tokens, expected at most {_MOST_CAPTION_TOKENS}")
    return config, layout


def _to_host_names(
    weights: StateDict, config: comfy.supported_models_base.BASE, layout: str
) -> tuple[StateDict, list[str]]:
    """(weights under the host's names, names that have none)."""
    if layout != "diffusers":
        return dict(weights), []
    if "image_model" in config.unet_config:
        return _pixart_names(weights)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    left_over = [key for key in weights if key not in names]
    return {names[key]: weight for key, weight in weights.items() if key in names}, left_over


def _pixart_names(weights: StateDict) -> tuple[StateDict, list[str]]:
    """The host's own conversion leaves memory as it was where a part of queries, keys and values is missing."""
    left_over = []
    for key in weights:
        try:
            pixart_location(key)
        except ValueError:
            left_over.append(key)
    return pixart_to_single_file({key: weights[key] for key in weights.keys() - left_over}), left_over


def _same_schedule(sampling: torch.nn.Module, sigmas: torch.Tensor) -> bool:
    """Files in half precision round their schedule, so alpha^2 is compared, and to 1 %."""
    if not hasattr(sampling, "sigmas") or len(sampling.sigmas) != len(sigmas):
        return False
    host, own = (1 / (values.double() ** 2 + 1) for values in (sampling.sigmas, sigmas))
    return bool(torch.allclose(host, own, rtol=0.01, atol=0.0))
