"""Models in diffusers' folders, on this machine or on the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from huggingface_hub import snapshot_download
from pydantic import ValidationError
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedModel, T5EncoderModel, T5TokenizerFast

from snoopi_core.formats.checkpoint import Schedule
from training.models.loading.source import SUPPORTED, Source, Text, check_supported, described, naming

_DESCRIPTIONS = ("*.json", "*.txt", "*.model")
# Copies of the same weights in half precision, and before averaging.
_COPIES = ("*fp16*", "*bf16*", "*non_ema*")
_NETWORKS = {"unet": UNet2DConditionModel, "pixart": PixArtTransformer2DModel}
_TEXT = {"clip_text_model": (CLIPTextModel, CLIPTokenizer), "t5": (T5EncoderModel, T5TokenizerFast)}


@dataclass(frozen=True)
class Folder:
    """A folder of parts, or of one part alone. `hub_id` is empty for one that was here before."""

    name: str
    root: Path
    hub_id: str = ""

    def part(self, *names: str) -> tuple[Path, dict[str, Any]]:
        """The first of these parts that is there, or the folder itself where it is one part; and its config.

        Raises:
            FileNotFoundError: none is there.
        """
        for folder in (*(self.root / name for name in names), self.root):
            if (folder / "config.json").is_file():
                return folder, json.loads((folder / "config.json").read_text(encoding="utf-8"))
        raise FileNotFoundError(f"{self.name} holds no {' and no '.join(f'{name}/config.json' for name in names)}")

    def read(self, kind: type[Any], part: Path, **dtype: torch.dtype) -> Any:
        """A part's module, downloaded first where it is on the hub; `without_weights`, its config is enough.

        Raises:
            FileNotFoundError: there are no weights, or none but pickles, which are never opened.
            ValueError: weights are missing.
        """
        if (module := described(partial(_from_config, kind, part))) is not None:
            return nn.Module.to(module, *dtype.values())  # diffusers' own warns, of an empty list
        if self.hub_id:
            inside = part.relative_to(self.root).as_posix()
            patterns = ["*model*.safetensors"] if part == self.root else [f"{inside}/*.safetensors"]
            snapshot_download(self.hub_id, allow_patterns=patterns, ignore_patterns=list(_COPIES))
        if not any(part.glob("*.safetensors")):
            pickles = ", ".join(path.name for path in sorted(part.iterdir()) if path.suffix in (".bin", ".ckpt", ".pt"))
            raise FileNotFoundError(
                f"{part} holds no .safetensors file"
                + (f"; its {pickles} can run code when opened, and so are not" if pickles else "")
            )
        module, found = kind.from_pretrained(part, use_safetensors=True, output_loading_info=True, **dtype)
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"{part} lacks {len(missing)} weight(s) of a {kind.__name__}, first {missing[0]}")
        return module


def open_folder(folder: Folder) -> Source:
    """A pipeline's folder.

    Raises:
        FileNotFoundError: it holds no network, or no scheduler.
        ValueError: its network or its noise schedule is not supported.
    """
    with naming(folder.name):
        part, config = folder.part("unet", "transformer")
        family = _family(config)
        check_supported(family, config, _pipeline(folder.root))
        schedule, prediction_type = _schedule(folder)

    def network() -> nn.Module:
        return folder.read(_NETWORKS[family], part, torch_dtype=torch.float32)

    return Source(
        family=family,
        network=network,
        text=(lambda dtype: read_text(folder, dtype)) if (folder.root / "text_encoder").is_dir() else None,
        vae=(lambda: read_vae(folder)) if (folder.root / "vae").is_dir() else None,
        schedule=schedule,
        prediction_type=prediction_type,
    )


def read_text(folder: Folder, dtype: torch.dtype) -> Text:
    """The text encoder and its tokenizer, in `text_encoder` and `tokenizer`, or a folder of both; T5 in `dtype`.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is neither CLIP nor T5.
    """
    part, config = folder.part("text_encoder")
    if (kind := config.get("model_type")) not in _TEXT:
        raise ValueError(f"{folder.name}: its text encoder is {kind!r}, expected one of {', '.join(_TEXT)}")
    model, tokenizer = _TEXT[kind]
    encoder: PreTrainedModel = folder.read(model, part, dtype=dtype if kind == "t5" else torch.float32)
    words = folder.root / "tokenizer"
    return encoder, tokenizer.from_pretrained(words if words.is_dir() else part)


def read_vae(folder: Folder) -> AutoencoderKL:
    """The VAE in `vae`, or a folder that is one.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is another class than AutoencoderKL.
    """
    part, config = folder.part("vae")
    if (kind := config.get("_class_name")) != AutoencoderKL.__name__:
        raise ValueError(f"{folder.name}: its VAE is {kind!r}, expected {AutoencoderKL.__name__}")
    return folder.read(AutoencoderKL, part, torch_dtype=torch.float32)


def download(hub_id: str) -> Folder:
    """The descriptions of a model on the hub; of its weights, what is asked for later.

    Raises:
        OSError: no such model, or no connection and no copy of it here.
    """
    return Folder(hub_id, Path(snapshot_download(hub_id, allow_patterns=list(_DESCRIPTIONS))), hub_id)


def _from_config(kind: type[Any], part: Path) -> nn.Module:
    """A part's module, with random weights."""
    if issubclass(kind, PreTrainedModel):
        return kind(kind.config_class.from_pretrained(part))
    return kind.from_config(kind.load_config(part))


def _family(config: dict[str, Any]) -> str:
    kind = str(config.get("_class_name"))
    if kind == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single":
        return "pixart"  # its class's name when PixArt was published
    family = next((family for family, network in _NETWORKS.items() if network.__name__ == kind), None)
    if family is None:
        raise ValueError(f"its network is a {kind}. {SUPPORTED}")
    return family


def _pipeline(root: Path) -> str:
    index = root / "model_index.json"
    return str(json.loads(index.read_text(encoding="utf-8")).get("_class_name")) if index.is_file() else ""


def _schedule(folder: Folder) -> tuple[Schedule, str]:
    """(schedule, prediction type); every scheduler's config says these in the same words."""
    if not (folder.root / "scheduler").is_dir():
        raise FileNotFoundError(f"{folder.name} holds no scheduler/, which says how the model was trained")
    config = DDPMScheduler.from_pretrained(folder.root, subfolder="scheduler").config
    for name in ("rescale_betas_zero_snr", "trained_betas"):
        if config.get(name) not in (None, False):
            raise ValueError(
                f"its scheduler has {name} = {config[name]!r}, which is not supported: at zero signal-to-noise "
                "x0 cannot be had from eps. Supported schedules: linear and scaled_linear betas"
            )
    try:
        return Schedule(**{name: config[name] for name in Schedule.model_fields}), config.prediction_type
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['input']!r}: {e['msg']}" for e in error.errors())
        raise ValueError(f"its scheduler's settings are not supported: {said}") from error
