"""Models in diffusers folders, local or on the hub."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from huggingface_hub import snapshot_download
from pydantic import ValidationError
from torch import nn
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedModel,
    T5EncoderModel,
    T5TokenizerFast,
)

from snoopi_core.formats.checkpoint import Schedule
from training.models.clip_tokenizer import MAX_TOKENS
from training.models.loading.build import T5_IS_NEEDED, build_on_meta
from training.models.loading.model_files import (
    SUPPORTED,
    ModelFiles,
    TextEncoder,
    check_supported,
    errors_naming,
    unet_family,
)
from training.models.loading.weight_files import COPIES, check_weights
from training.models.text_pair import TextEncoderPair

log = logging.getLogger(__name__)
CONFIGS = ["*.json", "*.txt", "*.model"]  # downloaded first; weights follow when a part is read
# Not downloaded: weights before the moving average; and, unless there are no others, copies in half precision.
_NOT_FIRST = (*(f"*{variant}*" for variant in COPIES), "*non_ema*")
_NETWORKS = {"unet": UNet2DConditionModel, "sdxl": UNet2DConditionModel, "pixart": PixArtTransformer2DModel}
_TEXT = {"clip_text_model": (CLIPTextModel, CLIPTokenizer), "t5": (T5EncoderModel, T5TokenizerFast)}


@dataclass(frozen=True)
class Folder:
    """A folder with a model's parts, or with a single part. `hub_id` is empty for a local folder."""

    name: str
    root: Path
    hub_id: str = ""

    def part(self, *names: str) -> tuple[Path, dict[str, Any]]:
        """The folder and config of the first of these parts that exists; a folder of one part is that part.

        Raises:
            FileNotFoundError: none exists.
        """
        for folder in (*(self.root / name for name in names), self.root):
            if (folder / "config.json").is_file():
                return folder, json.loads((folder / "config.json").read_text(encoding="utf-8"))
        raise FileNotFoundError(f"{self.name} has no {' and no '.join(f'{name}/config.json' for name in names)}")

    def read(self, kind: type[Any], part: Path, **dtype: torch.dtype) -> Any:
        """A part's module, downloaded first if it is on the hub.

        Inside `without_weights` the config is read, and the headers of the weights files if they are on this machine.

        Raises:
            FileNotFoundError, ValueError: see `check_weights`; or weights are missing.
        """
        stem = "model" if issubclass(kind, PreTrainedModel) else "diffusion_pytorch_model"
        needed = kind is not T5EncoderModel or T5_IS_NEEDED.get()
        variant = check_weights(part, stem) if needed and not self.hub_id else None
        if (module := build_on_meta(partial(_from_config, kind, part))) is not None:
            return nn.Module.to(module, *dtype.values())  # diffusers' own method warns about an empty list
        if self.hub_id:
            inside = part.relative_to(self.root).as_posix()
            patterns = ["*model*.safetensors"] if part == self.root else [f"{inside}/*.safetensors"]
            snapshot_download(self.hub_id, allow_patterns=patterns, ignore_patterns=list(_NOT_FIRST))
            if not any(part.glob("*.safetensors")):
                snapshot_download(self.hub_id, allow_patterns=patterns, ignore_patterns=["*non_ema*"])
            variant = check_weights(part, stem)
        if variant is not None:
            log.info("%s has its weights in half precision only: reading those in %s", part, variant)
        settings = {"use_safetensors": True, "output_loading_info": True, "variant": variant, **dtype}
        module, found = kind.from_pretrained(part, **settings)
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"{part}: {len(missing)} weight(s) of a {kind.__name__} are missing, first {missing[0]}")
        return module


def open_folder(folder: Folder) -> ModelFiles:
    """The model in the folder of a diffusers pipeline.

    Raises:
        FileNotFoundError: it has no network or no scheduler.
        ValueError: its network or its noise schedule is not supported.
    """
    with errors_naming(folder.name):
        part, config = folder.part("unet", "transformer")
        family = _family(config)
        check_supported(family, config, _pipeline(folder.root))
        schedule, prediction_type = _schedule(folder)

    def read_network() -> nn.Module:
        return folder.read(_NETWORKS[family], part, torch_dtype=torch.float32)

    return ModelFiles(
        family=family,
        read_network=read_network,
        read_text_encoder=(lambda dtype: read_text_encoder(folder, dtype, family=family))
        if (folder.root / "text_encoder").is_dir()
        else None,
        read_vae=(lambda: read_vae(folder)) if (folder.root / "vae").is_dir() else None,
        schedule=schedule,
        prediction_type=prediction_type,
    )


def read_text_encoder(folder: Folder, dtype: torch.dtype, *, family: str) -> TextEncoder:
    """The text encoder and its tokenizer, from `text_encoder/` and `tokenizer/` or one folder of both; T5 in `dtype`.

    SDXL's second ones are in `text_encoder_2/` and `tokenizer_2/`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is neither CLIP nor T5.
    """
    if family == "sdxl":
        return _read_text_pair(folder)
    part, config = folder.part("text_encoder")
    if (kind := config.get("model_type")) not in _TEXT:
        raise ValueError(f"{folder.name}: the text encoder is {kind!r}, expected one of {', '.join(_TEXT)}")
    model, tokenizer = _TEXT[kind]
    encoder: PreTrainedModel = folder.read(model, part, dtype=dtype if kind == "t5" else torch.float32)
    place = folder.root / "tokenizer"
    words = tokenizer.from_pretrained(place if place.is_dir() else part)
    positions = getattr(encoder.config, "max_position_embeddings", None)  # T5 has none
    if positions is not None:
        words.model_max_length = min(words.model_max_length, positions)  # some tokenizers claim 8192, or no limit
    return encoder, words


def _read_text_pair(folder: Folder) -> TextEncoder:
    """SDXL's two text encoders and their tokenizers."""
    encoders, tokenizers = [], []
    for end, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        for name in (f"text_encoder{end}", f"tokenizer{end}"):
            if not (folder.root / name).is_dir():
                raise FileNotFoundError(
                    f"{folder.name} has no {name}/; Stable Diffusion XL has text_encoder/, text_encoder_2/, tokenizer/ "
                    "and tokenizer_2/ (its refiner, which cannot be distilled, has only the second ones)"
                )
        part, _ = folder.part(f"text_encoder{end}")
        encoders.append(folder.read(kind, part, dtype=torch.float32))
        words = CLIPTokenizer.from_pretrained(folder.root / f"tokenizer{end}")
        words.model_max_length = MAX_TOKENS
        tokenizers.append(words)
    return TextEncoderPair(*encoders), tuple(tokenizers)


def read_vae(folder: Folder) -> AutoencoderKL:
    """The VAE, from `vae/` or from a folder that holds only a VAE.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its class is not AutoencoderKL.
    """
    part, config = folder.part("vae")
    if (kind := config.get("_class_name")) != AutoencoderKL.__name__:
        raise ValueError(f"{folder.name}: the VAE is {kind!r}, expected {AutoencoderKL.__name__}")
    return folder.read(AutoencoderKL, part, torch_dtype=torch.float32)


def _from_config(kind: type[Any], part: Path) -> nn.Module:
    """A part's module with random weights."""
    if issubclass(kind, PreTrainedModel):
        return kind(kind.config_class.from_pretrained(part))
    return kind.from_config(kind.load_config(part))


def _family(config: dict[str, Any]) -> str:
    kind = str(config.get("_class_name"))
    if kind == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single":
        return "pixart"  # the class had this name when PixArt was published
    if kind == UNet2DConditionModel.__name__:
        return unet_family(config)
    if kind != PixArtTransformer2DModel.__name__:
        raise ValueError(f"the network is a {kind}. {SUPPORTED}")
    return "pixart"


def _pipeline(root: Path) -> str:
    index = root / "model_index.json"
    return str(json.loads(index.read_text(encoding="utf-8")).get("_class_name")) if index.is_file() else ""


def _schedule(folder: Folder) -> tuple[Schedule, str]:
    """(schedule, prediction type); the configs of all schedulers use the same keys for these."""
    if not (folder.root / "scheduler").is_dir():
        raise FileNotFoundError(f"{folder.name} has no scheduler/, which describes the noise schedule of training")
    config = DDPMScheduler.from_pretrained(folder.root, subfolder="scheduler").config
    for name in ("rescale_betas_zero_snr", "trained_betas"):
        if config.get(name) not in (None, False):
            raise ValueError(
                f"the scheduler has {name} = {config[name]!r}, which is not supported: at zero signal-to-noise x0 "
                "cannot be computed from eps. Supported schedules: linear and scaled_linear betas"
            )
    try:
        return Schedule(**{name: config[name] for name in Schedule.model_fields}), config.prediction_type
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['input']!r}: {e['msg']}" for e in error.errors())
        raise ValueError(f"the scheduler's settings are not supported: {problems}") from error
