"""Settings of a training run: sections, keys and defaults; recipe.py puts the sections together.

Defaults are SNOOPI's Table 6 (SD1.5), or those of related public code where the paper gives none. This file limits
single values; checks.py checks their combinations.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from training.config.loras import check_loras
from training.config.values import Several, Shift, Sources, StepWeights, Timesteps, VsdWeight, split_weight

# SNOOPI's negative prompt for its scores (ICCV text)
GENERIC_NEGATIVE = "worst quality, low quality, ugly, duplicate, out of frame, deformed, blurry, bad anatomy, watermark"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


class Teacher(Section):
    """The multi-step model to distil."""

    path: str = Field(
        description="diffusers folder, hub id, or a single .safetensors file (SD1.5, SD2.1, SDXL, PixArt, or ours)"
    )
    loras: Annotated[Several[str], AfterValidator(check_loras)] = Field(
        default=(),
        description="LoRAs to merge into the teacher: .safetensors files, each with its strength (without one: 1), "
        '["style.safetensors:0.8", "detail.safetensors:0.4"]',
    )
    text_encoder: str = Field(
        default="", description="diffusers folder or hub id to take text encoder and tokenizer from; empty = path"
    )
    vae: str = Field(default="", description="diffusers folder or hub id to take the VAE from; empty = path")
    prediction_type: Literal["auto", "epsilon", "v_prediction", "sample"] = Field(
        default="auto", description="parameterisation of the network; auto = as in the teacher's files"
    )


class Student(Section):
    """The one-step or few-step model, which has the teacher's architecture.

    A few-step student is trained by backward simulation (DMD2, Section 4.5): an iteration draws one of its steps, runs
    the earlier ones from pure noise as One-Step Sampler does, and takes x0 at the drawn step.
    """

    init: str = Field(
        default="", description="diffusers folder, hub id or single file to start from; empty = the teacher's weights"
    )
    train: Literal["full", "lora"] = Field(default="full", description="all weights, or a LoRA on frozen ones")
    lora_rank: int = Field(
        default=256, ge=1, le=65_536, description="of a student trained as a LoRA (SwiftBrush v2: 256)"
    )
    lora_scaling: float = Field(default=256.0, gt=0, description="lora_alpha of such a student")
    lora_targets: Literal["attention_qv", "attention", "all"] = Field(default="attention")
    timestep: int = Field(default=999, ge=0, description="T, the student's timestep")
    timesteps: Timesteps = Field(
        default=(),
        description="of a few-step student, strictly decreasing, such as [999, 749, 499, 249]; empty = one step, at "
        "student.timestep",
    )
    step_weights: StepWeights = Field(
        default=(), description="how often an iteration draws each step, relative to the others; empty = equally often"
    )
    step_gradient: Literal["drawn", "all"] = Field(
        default="drawn",
        description="drawn: earlier steps run without gradient (DMD2); all: the gradient passes through all of them, "
        "at the cost of their activations",
    )
    transition: Literal["consistency", "euler"] = Field(
        default="consistency",
        description="from one step to the next: x0 with fresh noise (stochastic), or an Euler step of the "
        "probability-flow ODE (deterministic, DDIM)",
    )
    alpha_T_squared: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="signal power at T, the first timestep; unset = the teacher's schedule (SwiftBrush: 0.0047)",
    )
    learning_rate: float = Field(default=1e-6, gt=0)
    ema_decay: float = Field(default=0.9999, ge=0, lt=1, description="0 = no averaging; the raw weights are exported")
    nasa_alpha_max: float = Field(
        default=0.0,
        ge=0,
        description="NASA-T: the student is trained with NASA at alpha ~ U(0, this), and the same negative prompt "
        "replaces the null prompt in the frozen teacher's guidance; 0 = off",
    )
    nasa_negatives: Several[str] = Field(
        default=(GENERIC_NEGATIVE,), description="NASA-T's negative prompts; each iteration uses one"
    )

    @property
    def steps(self) -> tuple[int, ...]:
        """The student's timesteps, at least one."""
        return self.timesteps or (self.timestep,)


class Lora(Section):
    """The LoRA teacher, eps_psi: adapters on the frozen teacher's weights."""

    rank: int = Field(default=64, ge=1, le=65_536)
    scaling: float = Field(default=128.0, gt=0, description="lora_alpha; the update is multiplied by scaling / rank")
    targets: Literal["attention_qv", "attention", "all"] = Field(
        default="attention_qv",
        description="to_q and to_v of all attention, all four of its projections, or every linear and convolution",
    )
    learning_rate: float = Field(default=1e-3, gt=0)
    loss: Literal["eps", "native"] = Field(
        default="eps",
        description="eps: mean((alpha_t (eps_psi - eps))^2); native: plain mean square of the network's own output, "
        "for networks that predict v, whose errors eps weighs by alpha_t^4",
    )
    condition_dropout: float = Field(default=0.1, ge=0, le=1)
    t_min: int = Field(default=0, ge=0, description="its own timesteps: t ~ U{t_min..t_max}, around loop.t_min..t_max")
    t_max: int | None = Field(default=None, ge=0, description="unset = the teacher's last timestep")
    t_shift: Shift = Field(default=1.0, description="as loop.t_shift, of this range")
    updates: int = Field(default=1, ge=1, description="LoRA updates for each student update (5 is the DMD2 baseline)")
    batches: Literal["shared", "fresh"] = Field(
        default="shared",
        description="images of several updates: fresh (default): from the second on, new prompts and noise, drawn by "
        "the updated student without gradient (DMD2's code); shared: the student's, in all of them",
    )

    @model_validator(mode="before")
    @classmethod
    def _fresh_if_several(cls, given: Any) -> Any:
        return {"batches": usual_batches(given.get("updates"))} | given if isinstance(given, dict) else given


def usual_batches(updates: Any) -> str:
    """lora.batches where a recipe does not say: of a single update there is nothing to choose."""
    return "fresh" if isinstance(updates, int) and updates > 1 else "shared"


class Guidance(Section):
    """Random guidance scale of the two teachers: kappa ~ U(kappa_min, kappa_max), drawn once an iteration for both.

    A fixed scale replaces the random one for its teacher: fixing both at 4.5 gives SwiftBrush, fixing one gives
    a cell of the paper's Table 2.
    """

    kappa_min: float = Field(default=0.5, ge=0)
    kappa_max: float = Field(default=4.0, ge=0)
    kappa_per: Literal["iteration", "rank"] = Field(
        default="iteration", description="one scale for the whole batch, or one for each process"
    )
    teacher_kappa: float | None = Field(
        default=None, ge=0, description="fixed scale of the frozen teacher; unset = random"
    )
    lora_kappa: float | None = Field(default=None, ge=0, description="fixed scale of the LoRA teacher; unset = random")
    decoupled: bool = Field(
        default=False,
        description="Decoupled DMD (arXiv 2511.22677): what guidance adds to the score gap is taken at a timestep and "
        "noise of its own, with less noise than the student's step. The teachers' passes get half as many rows more, "
        "and none more with lora_kappa=1, the paper's",
    )


class Clip(Section):
    """L_CLIP pulls the student's images towards their prompts. Weight 0 turns it off, and CLIP is not loaded."""

    weight: float = Field(default=0.1, ge=0)
    final_weight: float | None = Field(
        default=None, ge=0, description="weight at the end, reached linearly; unset = constant"
    )
    margin: float = Field(
        default=0.37, ge=-1, le=1, description="tau: images more similar to their prompt have no loss"
    )
    share: float = Field(default=0.5, gt=0, le=1, description="of the batch that is decoded and compared")
    model: str = Field(default="ViT-B-32", description="open_clip's name of the architecture, or local-dir:FOLDER")
    pretrained: str = Field(default="laion2b_s34b_b79k", description="open_clip's tag, or a local weights file")
    decoder: str = Field(
        default="", description="folder or hub id of a tiny decoder (AutoencoderTiny, TAESD); empty = the teacher's VAE"
    )


class Loop(Section):
    """Batch, length and optimisation of the run."""

    iterations: int = Field(default=60_000, ge=1)
    batch_size: int = Field(
        default=64, ge=1, le=1_000_000, description="of an iteration, over all processes and micro-batches"
    )
    micro_batch: int = Field(
        default=0,
        ge=0,
        description="most rows that a device processes at once; gradients add up to batch_size. 0 = all",
    )
    t_min: int = Field(default=20, ge=0, description="score timesteps: t ~ U{t_min..t_max}")
    t_max: int = Field(default=980, ge=0)
    t_shift: Shift = Field(
        default=1.0,
        description="more noise than uniform above 1, less below: a share u of the range becomes s u / (1 + (s - 1) u) "
        "(Stable Diffusion 3, equation 23)",
    )
    vsd_weight: VsdWeight = Field(
        default="sigma_squared",
        description="weight of the score gap: sigma_t^2 (SDS, VSD, SwiftBrush), DMD's normalisation, or 1",
    )
    latent_size: int = Field(default=64, ge=1, le=4096, description="side of the latent, in latent pixels")
    gradient_clip: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: int = Field(default=0, ge=0, description="iterations over which both learning rates rise from 0")
    cooldown: int = Field(default=0, ge=0, description="last iterations, over which both learning rates fall to 0")
    precision: Literal["no", "bf16"] = "bf16"
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, more time"
    )
    optimizer: Literal["adamw", "adamw8bit"] = Field(default="adamw", description="adamw8bit needs bitsandbytes")
    channels_last: bool = Field(default=True, description="memory layout of convolutions on CUDA; affects only speed")
    tf32: bool = Field(
        default=True,
        description="fp32 matrix products and convolutions on CUDA round their factors to TF32's 10 bits; false = full "
        "fp32. With precision=bf16, little is left in fp32",
    )
    cudnn_benchmark: bool = Field(
        default=True,
        description="cuDNN tries its algorithms at the first iteration and keeps the fastest, which may differ between "
        "starts, by rounding",
    )
    compile: bool = Field(
        default=False, description="torch.compile the networks, for GPUs: takes minutes to start; gradients are checked"
    )
    max_skipped: int = Field(
        default=10,
        ge=1,
        description="stop after this many iterations in a row with a loss or gradient that is not finite",
    )
    threads: int = Field(default=0, ge=0, le=4096, description="CPU threads; 0 = torch's default")


class Prompts(Section):
    """The prompts; no images are needed."""

    source: Sources = Field(
        description='"shapes" or "avatars" (small worlds); a .txt, .csv, .tsv, .jsonl, .json or .parquet file, a '
        "folder or glob of files of one kind; or a hub data set, owner/name or owner/name:configuration. A list mixes "
        'several, each with its share of the prompts: ["a.txt:0.7", "b.csv:0.3"]'
    )
    column: str = Field(default="", description="of a table; empty = prompt, caption, text, or the only one with text")
    split: str = Field(default="train", description="of a hub data set")
    shuffle_block: int = Field(
        default=0,
        ge=0,
        description="0 = all prompts are shuffled together (a hub data set: in blocks of 65,536); otherwise they are "
        "read and shuffled in blocks of this size; 1 = in order",
    )
    over_long: Literal["cut", "skip"] = Field(
        default="cut", description="prompts with more tokens than the text encoder takes; counted in either case"
    )
    text_cache: str = Field(
        default="", description="folder of text embeddings, kept between runs; empty = encode during training"
    )

    @property
    def sources(self) -> tuple[tuple[str, float], ...]:
        """Each source and its weight."""
        return ((self.source, 1.0),) if isinstance(self.source, str) else tuple(map(split_weight, self.source))


class Output(Section):
    """What the run writes into its folder."""

    folder: Annotated[str, AfterValidator(os.path.expanduser)] = Field(default="runs/pgsb", min_length=1)
    title: str = "PG-SB student"
    save_every: int = Field(default=1000, ge=1)
    background_save: bool = Field(
        default=False,
        description="write checkpoints while the training goes on, from a copy in the machine's memory; a crash loses "
        "the work since the last one that was written completely",
    )
    keep_last: int = Field(default=3, ge=1)
    keep_best: bool = Field(
        default=True,
        description="also keep the checkpoint whose samples are nearest to the teacher's, and as diverse",
    )
    sample_every: int = Field(default=500, ge=0, description="0 = no sample grids and no report.html")
    sample_prompts: Several[str] = Field(
        default=(), description="of the sample grids; empty = eight of the run's prompts"
    )
    sample_seeds: int = Field(default=4, ge=2, description="images of each sample prompt, which measure diversity")
    log_every: int = Field(default=10, ge=1)
    trackers: Several[Literal["tensorboard", "wandb"]] = ("tensorboard",)
    recommended_alpha: float | None = Field(
        default=None,
        ge=0,
        description="NASA alpha written into the exported file; 0 = no negative prompt recommended, unset = not known",
    )
