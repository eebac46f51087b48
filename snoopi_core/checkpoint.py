"""The checkpoint contract: the one file that the trainer writes and the loader node reads.

A contract file is a safetensors file. Its weights lie under the names of a single-file Stable Diffusion checkpoint
(so other programs can open a full-size one), the text encoder and the VAE being optional. Its header carries, beside
the usual `modelspec.*` entries, two entries of ours:

    snoopi.format   "1"; raised only by a change that an older reader would misread
    snoopi.model    JSON of `Metadata`

Reader and writer use this module alone, so neither needs to know the other.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .presets import Noise, PredictionType, Steps

FORMAT = 1
FORMAT_KEY, MODEL_KEY = "snoopi.format", "snoopi.model"
PREFIXES = {
    "unet": "model.diffusion_model.",
    "text_encoder": "cond_stage_model.transformer.",
    "vae": "first_stage_model.",
}
_MADE_BY = "made by `python -m training.pgsb` or `python -m training.export`"
StateDict = dict[str, torch.Tensor]


class CheckpointError(ValueError):
    """A file that cannot be used; the message says which file, what is wrong with it and what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class OneStepRecipe(_Frozen):
    """How a student is sampled: x0 from unit-variance noise at each timestep in turn (PAPER Section 3 and 6).

    alpha_T and sigma_T belong to the first timestep; they are written down because students are trained with noise
    levels that their family's schedule does not have (SwiftBrush: alpha_T^2 = 0.0047). A flow starts from noise alone,
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
            raise ValueError(f"timesteps {self.timesteps} do not fall strictly")
        if abs(self.alpha_T**2 + self.sigma_T**2 - 1.0) > 1e-4:
            raise ValueError(f"alpha_T^2 + sigma_T^2 = {self.alpha_T**2 + self.sigma_T**2:.6f}, expected 1")
        return self


class Schedule(_Frozen):
    """Noise schedule the network was trained on, in diffusers' terms."""

    num_train_timesteps: int = Field(default=1000, ge=1, le=100_000)
    beta_schedule: Literal["linear", "scaled_linear"] = "scaled_linear"
    beta_start: float = Field(default=0.00085, gt=0.0, lt=1.0)
    beta_end: float = Field(default=0.012, gt=0.0, lt=1.0)


class Provenance(_Frozen):
    """Where the weights come from."""

    recipe_sha256: str = ""
    step: int = 0
    seed: int | None = None
    versions: dict[str, str] = {}
    notes: str = ""


class Metadata(_Frozen):
    """Everything about the weights that the weights do not say themselves.

    `unet`, `text_encoder` and `vae` are the configs of diffusers' UNet2DConditionModel, transformers' CLIPTextModel
    and diffusers' AutoencoderKL; None stands for a part that the file does not hold.
    """

    title: str
    role: Literal["student", "teacher"]
    family: Literal["unet"] = "unet"
    prediction_type: PredictionType
    unet: dict[str, Any]
    text_encoder: dict[str, Any] | None = None
    vae: dict[str, Any] | None = None
    pad_token_id: int = Field(default=49407, ge=0, description="SD1.x pads prompts with the end mark, SD2.x with 0")
    latent_scale: float = Field(gt=0.0)
    latent_rgb_factors: tuple[tuple[float, float, float], ...] | None = None
    schedule: Schedule = Schedule()
    recipe: OneStepRecipe | None = None
    recommended_alpha: float | None = Field(default=None, ge=0.0)
    provenance: Provenance = Provenance()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file in memory: metadata and, per part, weights under single-file names with the part's prefix taken off."""

    metadata: Metadata
    unet: StateDict
    text_encoder: StateDict | None = field(default=None)
    vae: StateDict | None = field(default=None)


def write_checkpoint(
    path: str | os.PathLike[str], checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a contract file atomically: a reader sees the old file or the whole new one, never half of one.

    Args:
        path: ends in `.safetensors`; missing folders are made.
        checkpoint: weights of any dtype and device.
        dtype: of the weights in the file.

    Raises:
        CheckpointError: another suffix, a weight that is not finite in `dtype`, or a part without its config.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path.name}: a checkpoint's name must end in .safetensors")
    metadata = checkpoint.metadata
    tensors: StateDict = {}
    for part, prefix in PREFIXES.items():
        weights = getattr(checkpoint, part)
        if (weights is None) != (getattr(metadata, part) is None):
            raise CheckpointError(f"{path.name}: {part} needs both weights and config, or neither")
        for name, weight in (weights or {}).items():
            tensors[prefix + name] = weight.detach().to("cpu", dtype, copy=True).contiguous()
    bad = [name for name, weight in tensors.items() if not torch.isfinite(weight).all()]
    if bad:
        raise CheckpointError(
            f"{path.name}: {len(bad)} weight(s) are not finite as {dtype}, first {bad[0]}; nothing was written"
        )

    header = {
        FORMAT_KEY: str(FORMAT),
        MODEL_KEY: metadata.model_dump_json(),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": metadata.title,
        "modelspec.prediction_type": {"v_prediction": "v"}.get(metadata.prediction_type, metadata.prediction_type),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata=header)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0600 would hide the file from a server's other users
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Read and check the header only.

    Raises:
        CheckpointError: no such file, not safetensors (a pickle is named as such and never opened), truncated, not
            one of ours, written by a newer version, or metadata that does not add up.
    """
    path = Path(path)
    _check_kind(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path.name} is damaged or cut short ({error}); copy or download it again, "
            "and compare its size with the source"
        ) from error
    if FORMAT_KEY not in header or MODEL_KEY not in header:
        raise CheckpointError(
            f"{path.name} is a safetensors file, but not one {_MADE_BY}: its header has no {FORMAT_KEY!r}. "
            "Open other checkpoints with the host's own Load Checkpoint node"
        )
    version = header[FORMAT_KEY]
    if not (version.isascii() and version.isdigit()) or int(version) < 1:
        raise CheckpointError(
            f"{path.name}: {FORMAT_KEY} is {version!r}, expected a whole number; export the file again"
        )
    if int(version) > FORMAT:
        raise CheckpointError(
            f"{path.name} has format {version}, this version of SNOOPI reads up to {FORMAT}; "
            "update SNOOPI, or export the file again"
        )
    try:
        return Metadata.model_validate_json(header[MODEL_KEY])
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'metadata'}: {e['msg']}" for e in error.errors()[:5])
        raise CheckpointError(f"{path.name}: its metadata does not add up ({found}); export the file again") from error


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a whole contract file onto the CPU, in the dtype it has there.

    Raises:
        CheckpointError: as `read_metadata`; or weights of a part are absent, or belong to no part.
    """
    path = Path(path)
    metadata = read_metadata(path)
    parts: dict[str, StateDict] = {part: {} for part in PREFIXES}
    strangers = []
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (safe_open is no dict)
            part = next((part for part, prefix in PREFIXES.items() if name.startswith(prefix)), None)
            if part is None or getattr(metadata, part) is None:
                strangers.append(name)
            else:
                parts[part][name.removeprefix(PREFIXES[part])] = file.get_tensor(name)
    empty = [part for part in PREFIXES if getattr(metadata, part) is not None and not parts[part]]
    if strangers or empty:
        said = [f"weights that its metadata does not announce, first {strangers[0]}"] if strangers else []
        said += [f"no weights for {', '.join(empty)}"] if empty else []
        raise CheckpointError(f"{path.name} holds {' and '.join(said)}; export the file again")
    return Checkpoint(metadata=metadata, **{part: weights or None for part, weights in parts.items()})


def _check_kind(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; give the path of a .safetensors checkpoint {_MADE_BY}")
    with open(path, "rb") as file:
        head = file.read(16)
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise CheckpointError(
            f"{path.name} is a pickle (.ckpt, .pt), which can run code when it is opened, so it was not opened; "
            "use the .safetensors version of the model"
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path.name}: expected a .safetensors file, got {path.suffix or 'no suffix'}")
