"""Models from any file: diffusers folders here or on the hub, single files of Stable Diffusion and PixArt, and ours.

`open_source` finds and recognises a model, in one of this folder's modules for each form; `load_parts` reads all of
it, `load_network` the network alone.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import nn

from snoopi_core.formats.checkpoint import find_metadata
from snoopi_core.formats.layouts import StateDict
from snoopi_core.formats.tensor_file import open_tensor_file
from training.config import ROOT, find_file
from training.models.loading.contract import open_contract
from training.models.loading.folder import Folder, download, open_folder, read_text, read_vae
from training.models.loading.single_file import open_single_file
from training.models.loading.source import Source, naming

if TYPE_CHECKING:
    from training.models.backbone import Backbone

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_EXPECTED = (
    "expected a diffusers folder (with unet/ or transformer/, text_encoder/, tokenizer/, vae/ and scheduler/), "
    "a .safetensors file, or a hub id such as owner/name"
)
# Of a config; these change neither weights nor what is computed with them.
_OF_NO_EFFECT = ("sample_size", "upcast_attention", "dropout")


def load_parts(
    path: str, *, text_encoder: str = "", vae: str = "", t5: torch.dtype | None = torch.bfloat16
) -> dict[str, Any]:
    """All parts of a model, in fp32 (but T5), in evaluation mode, without gradients.

    Args:
        path: diffusers folder, hub id or single .safetensors file.
        text_encoder, vae: diffusers folders or hub ids, to take these parts from instead.
        t5: dtype of PixArt's text encoder, 19 GB in fp32; None leaves it and its tokenizer out.

    Returns:
        family, network, text_encoder, tokenizer, vae, schedule, prediction_type and recipe (of a student's file).

    Raises:
        FileNotFoundError: nothing is there; says what was looked for.
        ValueError: it is not supported, damaged, or lacks a part that no setting names.
    """
    source = open_source(path)
    with_text = source.family != "pixart" or t5 is not None
    absent = [] if source.text or text_encoder or not with_text else ["text_encoder"]
    absent += [] if source.vae or vae else ["vae"]
    if absent:
        raise ValueError(
            f"{path} holds no {' and no '.join(absent)}; name a diffusers folder or hub id that does: "
            f"{' and '.join(f'teacher.{part}' for part in absent)} in a recipe, "
            f"{' and '.join('--' + part.replace('_', '-') for part in absent)} of training.export"
        )
    with naming(path):
        network = source.network()
    words: tuple[Any, Any] = None, None
    if with_text:
        with naming(text_encoder or path):
            read = functools.partial(read_text, _folder(text_encoder)) if text_encoder else source.text
            words = read(t5)
    with naming(vae or path):
        decoder = read_vae(_folder(vae)) if vae else source.vae()
    for module in (network, decoder, words[0]):
        if module is not None:
            module.eval().requires_grad_(False)
    return {
        "family": source.family,
        "network": network,
        "text_encoder": words[0],
        "tokenizer": words[1],
        "vae": decoder,
        "schedule": source.schedule,
        "prediction_type": source.prediction_type,
        "recipe": source.recipe,
    }


def load_network(path: str, like: Backbone) -> StateDict:
    """The weights of another model's network, fp32 under diffusers' names, for a network such as `like`'s.

    Raises:
        FileNotFoundError, ValueError: see `load_parts`; or the networks differ, and how.
    """
    return fitting_weights(path, like.network, like.family.name, like.prediction_type, "the teacher's")


def fitting_weights(path: str, network: nn.Module, family: str, prediction_type: str, whose: str) -> StateDict:
    """See `load_network`; `whose` network the other one is, for messages."""
    source = open_source(path)
    said = {"family": source.family, "prediction_type": source.prediction_type}
    differences = _differences(said, {"family": family, "prediction_type": prediction_type}, whose)
    if source.family == family:
        with naming(path):
            other = source.network()
        differences += _differences(_config(other), _config(network), whose)
        differences += _differences(_shapes(other), _shapes(network), whose)
    if differences:
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ValueError(f"{path} does not fit: {'; '.join(differences[:5])}{more}")
    return other.state_dict()


def scheduler_config(path: str) -> dict[str, Any] | None:
    """What a diffusers folder says of the scheduler that it is sampled with; None for a single file.

    Raises:
        FileNotFoundError: nothing is there, or no scheduler.
    """
    if find_file(path).is_file():
        return None
    file = _folder(path).root / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no scheduler/scheduler_config.json")
    return json.loads(file.read_text(encoding="utf-8"))


def open_source(path: str) -> Source:
    """Find and recognise a model.

    Raises:
        FileNotFoundError, ValueError: see `load_parts`.
    """
    found = find_file(path)
    if not found.is_file():
        return open_folder(_folder(path))
    file = open_tensor_file(found)  # names pickles as such
    metadata = find_metadata(file)
    return open_single_file(file) if metadata is None else open_contract(file, metadata)


def _folder(path: str) -> Folder:
    """A folder here, else on the hub if the path could be a hub id."""
    found = find_file(path)
    if found.is_dir():
        return Folder(path, found)
    looked = [str(Path(path).expanduser().absolute())]
    if not Path(path).expanduser().is_absolute():
        looked.append(str(ROOT / path))
    missing = f"no model at {path!r}: looked for {' and '.join(dict.fromkeys(looked))}"
    if path.count("/") != 1 or path.startswith((".", "/", "~")) or path.endswith(_WEIGHTS):
        raise FileNotFoundError(f"{missing}; {_EXPECTED}")
    try:
        return download(path)
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{missing}, and for {path} on the hub, which gave nothing ({reason}); {_EXPECTED}. Without the "
            "hub, download it elsewhere and name the folder or file"
        ) from error


def _config(network: nn.Module) -> dict[str, Any]:
    """What decides how a diffusers network computes; one number for all levels is as good as a list of it."""
    config = json.loads(network.to_json_string())
    plain = {key: value for key, value in config.items() if not key.startswith("_") and key not in _OF_NO_EFFECT}
    return {
        key: value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value
        for key, value in plain.items()
    }


def _shapes(network: nn.Module) -> dict[str, Any]:
    return {key: tuple(weight.shape) for key, weight in network.state_dict().items()}


def _differences(mine: dict[str, Any], others: dict[str, Any], whose: str) -> list[str]:
    return [
        f"{key} is {mine.get(key, 'absent')}, {whose} {others.get(key, 'absent')}"
        for key in sorted(mine.keys() | others.keys())
        if mine.get(key, "absent") != others.get(key, "absent")
    ]
