"""Recognise third-party files: Stable Diffusion 1, 2, XL and PixArt, as single files or in diffusers' layout.

The host recognises the network and converts its names. Then every key and shape is compared, as for our own files,
because the host's conversion drops unknown keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import comfy.model_detection
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch

from ...formats.joined_layouts import pixart_location, pixart_to_single_file
from ...formats.single_file_extras import is_harmless, stored_sigmas
from ...formats.tensor_file import StateDict, TensorFile
from .build import check_network, complete_network
from .check_weights import BUILD_ERRORS, check_numbers, summarize_problems

V_MARKER = "v_pred"
"""Marks v prediction."""
_PREFIX = "model.diffusion_model."
_TEXT_PREFIXES = ("cond_stage_model.", "conditioner.", "text_encoders.")
_VAE_PREFIXES = ("first_stage_model.", "vae.")
# Keys that mark the kind of prediction, which the host reads.
_MARKERS = frozenset({V_MARKER, "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min"})
_KNOWN = ("SD15", "SD20", "SDXL", "SDXLRefiner", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B")
_PIXART = ("PixArtAlpha", "PixArtSigma")
_FAMILIES = tuple(getattr(comfy.supported_models, name) for name in _KNOWN + _PIXART)
_SUPPORTED = "PG-SB Loader opens SD1.x, SD2.x, SDXL and PixArt"
_MAX_NETWORK_TENSORS, _MAX_CAPTION_TOKENS = 5000, 4096
_QUANTIZATION = "_quantization_metadata"  # in the header
_SCALES = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_2)?|input_scale|comfy_quant)$")
_BITSANDBYTES = re.compile(r"\.weight\.(absmax|quant_map|nested_absmax|quant_state\..+)$|\.SCB$")
_UNUSED_POSITIONS = "pos_embed"  # in PixArt's first files; the host computes positions for the current size


@dataclass(kw_only=True)
class Foreign:
    """A file whose network has been recognised and checked; no host object has been built yet."""

    file: TensorFile
    config: comfy.supported_models_base.BASE
    layout: str
    network: StateDict
    markers: StateDict
    schedule: torch.Tensor | None
    text: StateDict
    vae: StateDict
    harmless: list[str]

    @property
    def kind(self) -> str:
        return type(self.config).__name__

    @property
    def guesses_latents(self) -> bool:
        """Whether PixArt-sigma is a guess: in diffusers' layout, PixArt-alpha 512 differs only in its latents."""
        return self.kind == "PixArtSigma" and "model_max_length" not in self.config.unet_config


def recognise(file: TensorFile) -> Foreign:
    """Recognise what a file contains, and compare its network with the host's, key by key.

    Only shapes are read; the weights stay in the file.

    Raises:
        ValueError: an unknown network, or keys that are missing, unexpected or of another shape.
    """
    _refuse_quantized(file)
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
    if len(names) > _MAX_NETWORK_TENSORS:
        raise ValueError(f"its network has {len(names)} tensors, expected at most {_MAX_NETWORK_TENSORS}. {_SUPPORTED}")
    check_numbers("network", names)
    weights = {name.removeprefix(prefix): weight for name, weight in file.read(names).items()}
    # Shapes first, so that nothing is allocated for an invalid file.
    shapes = {name: torch.empty_like(weight, device="meta") for name, weight in weights.items()}
    config, layout = _detect(shapes)
    shapes, unexpected = _to_host_names(shapes, config, layout)
    if _UNUSED_POSITIONS in shapes and "image_model" in config.unet_config:
        harmless.append(prefix + _UNUSED_POSITIONS)
        del shapes[_UNUSED_POSITIONS], weights[_UNUSED_POSITIONS]
    outside += sorted(markers.difference(_MARKERS if isinstance(config, comfy.supported_models.SDXL) else {V_MARKER}))
    check_network(config, shapes, unexpected=unexpected + outside)
    found = Foreign(
        file=file,
        config=config,
        layout="single file" if single else layout,
        network=complete_network(config, _to_host_names(weights, config, layout)[0]),
        markers=file.read(markers),
        schedule=stored_sigmas(file),
        text=file.read(text),
        vae=file.read(vae),
        harmless=sorted(harmless),
    )
    try:
        config.model_type({**found.network, **found.markers}, "")
    except BUILD_ERRORS as error:
        raise ValueError(f"its kind of prediction cannot be recognised ({type(error).__name__}: {error})") from error
    return found


def _refuse_quantized(file: TensorFile) -> None:
    """Refuse weights that mean something only together with their scales."""
    if names := [name for name in file.names if _BITSANDBYTES.search(name)]:
        how, advice = "bitsandbytes (nf4 or int8)", ""
    elif (names := [name for name in file.names if _SCALES.search(name)]) or _QUANTIZATION in file.metadata:
        how = "scaled fp8, int8 or fp4"
        advice = (
            "open it with ComfyUI's Load Checkpoint or Load Diffusion Model node, whose MODEL NASA Apply takes; or "
        )
    else:
        return
    first = f", first {names[0]}" if names else f", see {_QUANTIZATION} in its header"
    raise ValueError(
        f"its weights are quantized with scales ({how}{first}), which PG-SB Loader cannot read: {advice}take the "
        "model in fp16, bf16 or plain fp8"
    )


def _detect(shapes: StateDict) -> tuple[comfy.supported_models_base.BASE, str]:
    """The host's config and the layout: bare (single-file names without prefix) or diffusers."""
    layout, config = "bare", None
    try:
        if "conv_in.weight" in shapes and "time_embedding.linear_1.weight" in shapes:
            layout, config = "diffusers", comfy.model_detection.model_config_from_diffusers_unet(shapes)
        elif "adaln_single.linear.weight" in shapes and "pos_embed.proj.bias" in shapes:
            layout, (bare, _) = "diffusers", _pixart_names(shapes)
            config = comfy.model_detection.model_config_from_unet(bare, "")
        elif "input_blocks.0.0.weight" in shapes or "t_block.1.weight" in shapes:
            config = comfy.model_detection.model_config_from_unet(shapes, "")
    except BUILD_ERRORS as error:
        raise ValueError(f"its network cannot be recognised ({type(error).__name__}: {error}). {_SUPPORTED}") from error
    if config is None:
        some = summarize_problems(sorted(shapes)[:3]) or "none"
        if any("lora_" in name for name in shapes):
            raise ValueError(f"it is a LoRA (first keys: {some}): move it to models/loras and choose it as lora_name")
        if "encoder.conv_in.weight" in shapes:
            raise ValueError(f"it is a VAE (first keys: {some}): open it with ComfyUI's Load VAE node")
        raise ValueError(
            f"ComfyUI recognises no network by these keys and shapes (first keys: {some}). {_SUPPORTED}, as a single "
            "file or a diffusers UNet or transformer; for others use ComfyUI's own Load Checkpoint node"
        )
    if type(config) not in _FAMILIES:
        raise ValueError(f"its network is {type(config).__name__}. {_SUPPORTED}; use ComfyUI's own loaders for others")
    if (tokens := config.unet_config.get("model_max_length", 0)) > _MAX_CAPTION_TOKENS:
        raise ValueError(f"it takes prompts of {tokens} tokens, expected at most {_MAX_CAPTION_TOKENS}")
    return config, layout


def _to_host_names(
    weights: StateDict, config: comfy.supported_models_base.BASE, layout: str
) -> tuple[StateDict, list[str]]:
    """(weights under the host's names, names without an equivalent)."""
    if layout != "diffusers":
        return dict(weights), []
    if "image_model" in config.unet_config:
        return _pixart_names(weights)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    unexpected = [key for key in weights if key not in names]
    return {names[key]: weight for key, weight in weights.items() if key in names}, unexpected


def _pixart_names(weights: StateDict) -> tuple[StateDict, list[str]]:
    """As `_to_host_names`, without the host's conversion, which leaves memory uninitialised if a part is missing."""
    unexpected = []
    for key in weights:
        try:
            pixart_location(key)
        except ValueError:
            unexpected.append(key)
    return pixart_to_single_file({key: weights[key] for key in weights.keys() - unexpected}), unexpected
