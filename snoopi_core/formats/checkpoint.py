"""The checkpoint contract: the file format that the trainer writes and the loader node reads.

A contract file is a safetensors file. Its weights have the names of a single-file Stable Diffusion checkpoint, so other
programs can open a full-size one; the text encoder and the VAE are optional. Besides the usual `modelspec.*` entries,
its header contains

    snoopi.format   "1"; increased only by a change that an older reader would misread
    snoopi.model    JSON of `Metadata`

Trainer and loader both use this module and do not depend on each other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..presets import Noise, PredictionType, Steps
from .tensor_file import CheckpointError, StateDict, TensorFile, open_tensor_file, save_atomically

FORMAT = 1
FORMAT_KEY, MODEL_KEY = "snoopi.format", "snoopi.model"
PREFIXES = {
    "unet": "model.diffusion_model.",
    "text_encoder": "cond_stage_model.transformer.",
    "vae": "first_stage_model.",
}
_MADE_BY = "made by `python -m training.pgsb` or `python -m training.export`"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class OneStepRecipe(_Frozen):
    """How a student is sampled: x0 from unit-variance noise at each timestep in turn (PAPER Section 3 and 6).

    alpha_T and sigma_T belong to the first timestep. They are stored because students may be trained with noise levels
    that their family's schedule does not have (SwiftBrush: alpha_T^2 = 0.0047). Flow models start from pure noise, with
    0 and 1. `noise` and `steps` are explained in `presets`.
    """

    timesteps: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    alpha_T: float = Field(ge=0.0, le=1.0)
    sigma_T: float = Field(ge=0.0, le=1.0)
    noise: Noise = "unit"
    steps: Steps = "consistency"

    @model_validator(mode="after")
    def _consistent(self) -> OneStepRecipe:
        if any(later >= earlier for earlier, later in zip(self.timesteps, self.timesteps[1:], strict=False)):
            raise ValueError(f"timesteps {self.timesteps} are not strictly decreasing")
        if abs(self.alpha_T**2 + self.sigma_T**2 - 1.0) > 1e-4:
            raise ValueError(f"alpha_T^2 + sigma_T^2 = {self.alpha_T**2 + self.sigma_T**2:.6f}, expected 1")
        return self


class Schedule(_Frozen):
    """The noise schedule that the network was trained on, in diffusers' terms."""

    num_train_timesteps: int = Field(default=1000, ge=1, le=100_000)
    beta_schedule: Literal["linear", "scaled_linear"] = "scaled_linear"
    beta_start: float = Field(default=0.00085, gt=0.0, lt=1.0)
    beta_end: float = Field(default=0.012, gt=0.0, lt=1.0)


class Provenance(_Frozen):
    """Origin of the weights."""

    recipe_sha256: str = ""
    step: int = 0
    seed: int | None = None
    versions: dict[str, str] = {}
    notes: str = ""


class BaseMetadata(_Frozen):
    """Metadata of any student or teacher, whether its file contains a full model or a LoRA."""

    title: str
    family: Literal["unet", "pixart"] = "unet"
    prediction_type: PredictionType
    schedule: Schedule = Schedule()
    recipe: OneStepRecipe | None = None
    recommended_alpha: float | None = Field(default=None, ge=0.0)
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _recipe_in_schedule(self) -> Self:
        count = self.schedule.num_train_timesteps
        # Flow models have one more timestep: 1000 of a thousand.
        last = count if self.prediction_type == "flow" else count - 1
        if self.recipe is not None and self.recipe.timesteps[0] > last:
            raise ValueError(
                f"the recipe starts at timestep {self.recipe.timesteps[0]}, the schedule has {count} timesteps"
            )
        return self


class Metadata(BaseMetadata):
    """Metadata of a file with a full model.

    `unet`, `text_encoder` and `vae` are the configs of diffusers' UNet2DConditionModel (family "unet") or
    PixArtTransformer2DModel (family "pixart"), transformers' CLIPTextModel and diffusers' AutoencoderKL; None means
    that the file does not contain the part.
    """

    role: Literal["student", "teacher"]
    unet: dict[str, Any]
    text_encoder: dict[str, Any] | None = None
    vae: dict[str, Any] | None = None
    pad_token_id: int = Field(default=49407, ge=0, description="SD1.x pads prompts with the end mark, SD2.x with 0")
    latent_scale: float = Field(gt=0.0)
    latent_rgb_factors: tuple[tuple[float, float, float], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file in memory: metadata and the weights of each part, under single-file names without the part's prefix."""

    metadata: Metadata
    unet: StateDict
    text_encoder: StateDict | None = None
    vae: StateDict | None = None


def write_checkpoint(
    path: str | os.PathLike[str], checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a contract file atomically.

    Args:
        path: ends in `.safetensors`; missing folders are created.
        checkpoint: weights of any dtype and device.
        dtype: of the weights in the file.

    Raises:
        CheckpointError: another suffix, a weight that is not finite in `dtype`, or a part without its config.
    """
    path = Path(path)
    metadata = checkpoint.metadata
    tensors: StateDict = {}
    for part, prefix in PREFIXES.items():
        weights = getattr(checkpoint, part)
        if (weights is None) != (getattr(metadata, part) is None):
            raise CheckpointError(f"{path.name}: {part} needs both weights and config, or neither")
        tensors |= {prefix + name: cpu_copy(weight, dtype) for name, weight in (weights or {}).items()}
    return save_atomically(path, tensors, build_header(metadata, MODEL_KEY))


def cpu_copy(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A contiguous copy on the CPU."""
    return weight.detach().to("cpu", dtype, copy=True).contiguous()


def build_header(about: BaseMetadata, key: str) -> dict[str, str]:
    """The header of a SNOOPI file, with the metadata under `key`."""
    return {
        FORMAT_KEY: str(FORMAT),
        key: about.model_dump_json(),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": about.title,
        "modelspec.prediction_type": {"v_prediction": "v"}.get(about.prediction_type, about.prediction_type),
    }


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Read and check the header only.

    Raises:
        CheckpointError: no such file, not safetensors (pickles are recognised, but never opened), truncated, not a
            contract file, written by a newer version, or invalid metadata.
    """
    file = open_tensor_file(path, f"checkpoint {_MADE_BY}")
    if (metadata := find_metadata(file)) is None:
        raise CheckpointError(
            f"{file.path.name} is a safetensors file, but not one {_MADE_BY}: its header has no {FORMAT_KEY!r}"
        )
    return metadata


def find_metadata(file: TensorFile) -> Metadata | None:
    """Metadata of a contract file; None for other files.

    Raises:
        CheckpointError: written by a newer version, or invalid metadata.
    """
    return parse_header(file, MODEL_KEY, Metadata)


_A = TypeVar("_A", bound=BaseMetadata)


def parse_header(file: TensorFile, key: str, kind: type[_A]) -> _A | None:
    """The metadata under `key` in a file's header; None if the header lacks it.

    Raises:
        CheckpointError: see `find_metadata`.
    """
    name, header = file.path.name, file.metadata
    if FORMAT_KEY not in header or key not in header:
        return None
    version = header[FORMAT_KEY]
    if not (version.isascii() and version.isdigit() and len(version) < 10) or int(version) < 1:
        raise CheckpointError(
            f"{name}: {FORMAT_KEY} is {version[:80]!r}, expected a whole number; export the file again"
        )
    if int(version) > FORMAT:
        raise CheckpointError(
            f"{name} has format {version}, this version of SNOOPI reads up to {FORMAT}; "
            "update SNOOPI, or export the file again"
        )
    try:
        return kind.model_validate_json(header[key])
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'metadata'}: {e['msg']}" for e in error.errors()[:5])
        raise CheckpointError(f"{name}: its metadata is invalid ({found}); export the file again") from error


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a contract file onto the CPU, in the file's dtype.

    Raises:
        CheckpointError: as `read_metadata` and `read_parts`.
    """
    metadata = read_metadata(path)
    return read_parts(open_tensor_file(path), metadata)


def read_parts(file: TensorFile, metadata: Metadata) -> Checkpoint:
    """Read the weights of all parts that `metadata` describes.

    Raises:
        CheckpointError: the weights of a part are missing, or some weights belong to no part.
    """
    name = file.path.name
    prefixes = {part: prefix for part, prefix in PREFIXES.items() if getattr(metadata, part) is not None}
    parts = {part: [key for key in file.names if key.startswith(prefix)] for part, prefix in prefixes.items()}
    unexpected = [key for key in file.names if not key.startswith(tuple(prefixes.values()))]
    empty = [part for part, names in parts.items() if not names]
    if unexpected or empty:
        problems = [f"weights that its metadata does not describe, first {unexpected[0]}"] if unexpected else []
        problems += [f"no weights for {', '.join(empty)}"] if empty else []
        raise CheckpointError(f"{name} holds {' and '.join(problems)}; export the file again")
    weights = {
        part: {key.removeprefix(prefixes[part]): weight for key, weight in file.read(names).items()}
        for part, names in parts.items()
    }
    return Checkpoint(metadata=metadata, **weights)
