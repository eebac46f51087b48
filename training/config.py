"""Recipes: a small TOML file layered over the defaults below, then `key=value` overrides.

Defaults are PAPER Table 6 (SD1.5) and, where the paper is silent, the public code of the same line of work.
Everything is resolved and checked before anything starts; all errors are reported at once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent
RECIPES = Path(__file__).resolve().parent / "recipes"


# SNOOPI's own negative for the scores (ICCV text)
GENERIC_NEGATIVE = "worst quality, low quality, ugly, duplicate, out of frame, deformed, blurry, bad anatomy, watermark"


class RecipeError(ValueError):
    """A recipe that cannot be used; the message lists every problem found."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Teacher(_Section):
    """The multi-step model to distil."""

    path: str = Field(
        description="diffusers folder, hub id, or a single .safetensors file (SD1.5, SD2.1, PixArt, or ours)"
    )
    text_encoder: str = Field(
        default="", description="diffusers folder or hub id to take text encoder and tokenizer from; empty = path"
    )
    vae: str = Field(default="", description="diffusers folder or hub id to take the VAE from; empty = path")
    prediction_type: Literal["auto", "epsilon", "v_prediction", "sample"] = Field(
        default="auto", description="parameterisation of the network; auto = what the teacher's files say"
    )


class Student(_Section):
    """The one-step model, of the teacher's architecture."""

    init: str = Field(
        default="", description="diffusers folder, hub id or single file to start from; empty = the teacher's weights"
    )
    train: Literal["full", "lora"] = Field(default="full", description="all weights, or a LoRA on frozen ones")
    lora_rank: int = Field(default=256, ge=1, description="of a student that is trained as a LoRA (SwiftBrush v2: 256)")
    lora_scaling: float = Field(default=256, gt=0, description="lora_alpha of such a student")
    lora_targets: Literal["attention_qv", "attention", "all"] = Field(default="attention")
    timestep: int = Field(default=999, ge=0, description="T, at which the student is called")
    alpha_T_squared: float | None = Field(
        default=None, gt=0, lt=1, description="signal power at T; unset = the teacher's schedule (SwiftBrush: 0.0047)"
    )
    learning_rate: float = Field(default=1e-6, gt=0)
    ema_decay: float = Field(default=0.9999, ge=0, lt=1, description="0 = no averaging: the raw weights are exported")
    nasa_alpha_max: float = Field(
        default=0.0,
        ge=0,
        description="NASA-T: the student is trained with NASA at alpha ~ U(0, this), and the frozen teacher is guided "
        "away from the same negative prompt in place of the null prompt; 0 = off",
    )
    nasa_negatives: tuple[str, ...] = Field(default=(GENERIC_NEGATIVE,), description="one of these an iteration")


class Lora(_Section):
    """The LoRA teacher, eps_psi: adapters on the frozen teacher's own weights."""

    rank: int = Field(default=64, ge=1)
    scaling: float = Field(default=128, gt=0, description="lora_alpha; the update is multiplied by scaling / rank")
    targets: Literal["attention_qv", "attention", "all"] = Field(
        default="attention_qv",
        description="to_q and to_v of all attention, all four of its projections, or every linear and convolution",
    )
    learning_rate: float = Field(default=1e-3, gt=0)
    loss: Literal["eps", "native"] = Field(
        default="eps",
        description="eps: mean((alpha_t (eps_psi - eps))^2); native: plain mean square of the network's own output",
    )
    condition_dropout: float = Field(default=0.1, ge=0, le=1)
    updates: int = Field(default=1, ge=1, description="LoRA updates a student update (5 is the DMD2 baseline)")


class Guidance(_Section):
    """Random guidance scale of the two teachers: kappa ~ U(kappa_min, kappa_max), one draw an iteration for both.

    A fixed scale takes the draw's place for its teacher: both at 4.5 is plain SwiftBrush, one of them is a cell of
    the paper's Table 2.
    """

    kappa_min: float = 0.5
    kappa_max: float = 4.0
    kappa_per: Literal["iteration", "rank"] = Field(
        default="iteration", description="one draw for the whole batch, or one for each process's share of it"
    )
    teacher_kappa: float | None = Field(default=None, description="fixed scale of the frozen teacher; unset = the draw")
    lora_kappa: float | None = Field(default=None, description="fixed scale of the LoRA teacher; unset = the draw")

    @model_validator(mode="after")
    def _ordered(self) -> Guidance:
        if self.kappa_max < self.kappa_min:
            raise ValueError(f"kappa_max {self.kappa_max} is below kappa_min {self.kappa_min}")
        return self


class Clip(_Section):
    """L_CLIP pulls the student's images towards their prompts; weight 0 turns it off, and nothing is then loaded."""

    weight: float = Field(default=0.1, ge=0)
    final_weight: float | None = Field(default=None, ge=0, description="weight at the end, linearly; unset = constant")
    margin: float = Field(default=0.37, ge=-1, le=1, description="tau: images nearer to their prompt are let be")
    share: float = Field(default=0.5, gt=0, le=1, description="of the batch that is decoded and judged")
    model: str = Field(default="ViT-B-32", description="open_clip's name of the architecture, or local-dir:FOLDER")
    pretrained: str = Field(default="laion2b_s34b_b79k", description="open_clip's tag, or a local weights file")
    decoder: str = Field(
        default="", description="folder or hub id of a tiny decoder (AutoencoderTiny, TAESD); empty = the teacher's VAE"
    )


class Loop(_Section):
    """Size and pace of the run."""

    iterations: int = Field(default=60_000, ge=1)
    batch_size: int = Field(default=64, ge=1, description="of an iteration: over all processes and micro-batches")
    micro_batch: int = Field(
        default=0, ge=0, description="rows that one device works on at once; gradients add up to batch_size. 0 = all"
    )
    t_min: int = Field(default=20, ge=0, description="score timesteps: t ~ U{t_min..t_max}")
    t_max: int = Field(default=980, ge=0)
    latent_size: int = Field(default=64, ge=1, description="side of the latent, in latent pixels")
    gradient_clip: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: int = Field(default=0, ge=0, description="iterations over which both learning rates rise from 0")
    cooldown: int = Field(default=0, ge=0, description="last iterations, over which both learning rates fall to 0")
    precision: Literal["no", "bf16"] = "bf16"
    gradient_checkpointing: bool = False
    optimizer: Literal["adamw", "adamw8bit"] = Field(default="adamw", description="adamw8bit needs bitsandbytes")
    channels_last: bool = Field(default=True, description="memory layout of convolutions on CUDA; changes speed only")
    compile: bool = Field(default=False, description="torch.compile the networks; slow to start, then faster")
    max_skipped: int = Field(
        default=10, ge=1, description="stop after so many iterations in a row whose loss or gradient is not finite"
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 = as many as torch wants")


class Prompts(_Section):
    """Where the prompts come from; no images are needed."""

    source: str = Field(
        description='"shapes" (the small world); a .txt, .csv, .tsv, .jsonl, .json or .parquet file, a folder or glob '
        "of files of one kind; or a hub data set, owner/name or owner/name:configuration"
    )
    column: str = Field(default="", description="of a table; empty = prompt, caption, text, or the only one with text")
    split: str = Field(default="train", description="of a hub data set")
    shuffle_block: int = Field(
        default=65_536, ge=1, description="prompts are read, and shuffled, so many at a time; 1 = in order"
    )
    over_long: Literal["cut", "skip"] = Field(
        default="cut", description="prompts with more tokens than the text encoder takes; they are counted either way"
    )
    text_cache: str = Field(
        default="", description="folder in which text embeddings are kept between runs; empty = encoded on the fly"
    )


class Output(_Section):
    """What is written while it runs, below the run folder."""

    folder: str = Field(default="runs/pgsb", min_length=1)
    title: str = "PG-SB student"
    save_every: int = Field(default=1000, ge=1)
    keep_last: int = Field(default=3, ge=1)
    keep_best: bool = Field(default=True, description="keep the checkpoint that is nearest to the teacher as well")
    sample_every: int = Field(default=500, ge=0, description="0 = no sample grids")
    sample_prompts: tuple[str, ...] = ()
    log_every: int = Field(default=10, ge=1)
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    recommended_alpha: float | None = Field(default=None, ge=0, description="NASA alpha written into the exported file")


class Recipe(_Section):
    """One training run."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    teacher: Teacher
    student: Student = Student()
    lora: Lora = Lora()
    guidance: Guidance = Guidance()
    clip: Clip = Clip()
    loop: Loop = Loop()
    prompts: Prompts
    output: Output = Output()

    @model_validator(mode="after")
    def _ordered(self) -> Recipe:
        if self.loop.t_max < self.loop.t_min:
            raise ValueError(f"loop.t_max {self.loop.t_max} is below loop.t_min {self.loop.t_min}")
        return self

    def sha256(self) -> str:
        """Hash of what decides the weights: where things are written does not count."""
        content = self.model_dump(mode="json", exclude={"output"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """Resolve a shipped recipe's name or a TOML file, with overrides such as `guidance.kappa_max=3`.

    Raises:
        RecipeError: no such recipe, broken TOML, unknown keys (with the nearest known one), values out of range.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        raise RecipeError(
            f"no recipe {name_or_path!r}; shipped: {', '.join(recipe_names())}; or give a path to a .toml file"
        )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not valid TOML: {error}") from error
    for override in overrides or []:
        _apply_override(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise RecipeError(
            f"recipe {path.name}: {len(lines)} problem(s)\n" + "\n".join(f"  - {line}" for line in lines)
        ) from error


def find_file(path: str) -> Path:
    """A path as given, or below the project's root, so that shipped recipes work from any folder."""
    given = Path(path).expanduser()
    return given if given.exists() or given.is_absolute() or not (ROOT / given).exists() else ROOT / given


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"override {override!r}: expected key=value, for example guidance.kappa_max=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word or path: quoting it would only be a nuisance in a shell
    for part in parts[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"override {override!r}: {part} is a value, not a section")
    tree[parts[-1]] = value


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += _known_keys(info.annotation, f"{prefix}{name}.")
    return keys


def _explain(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = _known_keys(Recipe)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        section = key.rpartition(".")[0]
        siblings = [k for k in known if k.rpartition(".")[0] == section]
        return f"unknown key {key}; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(siblings)}")
    if problem["type"] == "missing":
        return f"{key} is required"
    got = f" (got {problem['input']!r})" if key and not isinstance(problem["input"], dict) else ""
    return f"{key + ': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}{got}"
