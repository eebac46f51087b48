"""Workflows for published models and for one's own exports: their weights must be downloaded or trained first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scripts.workflows.loaders import checkpoint, clip, download, hub_file, lora, network, vae
from scripts.workflows.parts import (
    CLIP,
    LOADER,
    MODEL,
    NOTE,
    RESULT,
    ROW,
    VAE,
    File,
    Link,
    Node,
    Workflow,
    latent,
    nasa,
    one_step,
    save,
    text,
)

SEED = 0


SD_TURBO = hub_file("checkpoints", "stabilityai/sd-turbo", "sd_turbo.safetensors")
SDXL_TURBO = hub_file("checkpoints", "stabilityai/sdxl-turbo", "sd_xl_turbo_1.0_fp16.safetensors")
SDXL = hub_file("checkpoints", "stabilityai/stable-diffusion-xl-base-1.0", "sd_xl_base_1.0.safetensors")
LIGHTNING = hub_file("checkpoints", "ByteDance/SDXL-Lightning", "sdxl_lightning_4step.safetensors")
DMD2_1 = hub_file("diffusion_models", "tianweiy/DMD2", "dmd2_sdxl_1step_unet_fp16.bin")
DMD2_4 = hub_file("loras", "tianweiy/DMD2", "dmd2_sdxl_4step_lora_fp16.safetensors")
# The published name is not descriptive; this name is the usual one.
LCM_LORA = hub_file(
    "loras",
    "latent-consistency/lcm-lora-sdxl",
    "pytorch_lora_weights.safetensors",
    "lcm-lora-sdxl.safetensors",
)
PIXART_DMD = hub_file(
    "diffusion_models",
    "PixArt-alpha/PixArt-Alpha-DMD-XL-2-512x512",
    "transformer/diffusion_pytorch_model.bin",
    "pixart_alpha_dmd_512.bin",
)
T5 = hub_file("text_encoders", "comfyanonymous/flux_text_encoders", "t5xxl_fp16.safetensors")
SD_VAE = hub_file("vae", "stabilityai/sd-vae-ft-mse-original", "vae-ft-mse-840000-ema-pruned.safetensors")
SD15 = hub_file("checkpoints", "Comfy-Org/stable-diffusion-v1-5-archive", "v1-5-pruned-emaonly-fp16.safetensors")
LORA_XL, LORA_15 = (File(f"my_4_step_lora_{kind}.safetensors", "loras", "") for kind in ("sdxl", "sd15"))
STUDENT = File("student.safetensors", "checkpoints", "")  # what the trainer calls its export


def _t5() -> Node:
    return clip(T5, "pixart")


def _export() -> Node:
    inputs = {"ckpt_name": STUDENT.name, "lora_name": "none", "latents": "auto"}
    return Node(type="SnoopiPGSBLoader", inputs=inputs, size=LOADER, files=(STUDENT,))


def _published(
    model: str,
    about: str,
    shows: str,
    loaders: Mapping[str, Node],
    *,
    preset: str,
    timesteps: str = "auto",
    alpha: float = 0.3,
    alpha_mode: str = "as set",
    turn: str,
    side: int,
    negative: str = "cat",
    get: str = "",
    between: Mapping[str, Node] | None = None,
) -> Workflow:
    """The chain that all of them share: loaders, NASA Apply, One-Step Sampler.

    Model, CLIP and VAE are those of the checkpoint "loader", or of a "network" or "lora", a "clip" and a "vae" among
    the loaders. `between` goes between sampler and decoder; `get` replaces the note's list of downloads.
    """
    between = between or {}
    steered = next((Link(key) for key in ("lora", "network") if key in loaders), MODEL)
    clip_link = Link("clip") if "clip" in loaders else CLIP
    vae_link = Link("vae") if "vae" in loaders else VAE
    files = [file for node in loaders.values() for file in node.files]
    decoded = Link(list(between)[-1] if between else "sampler")
    beside = {key: [key] if key in loaders else [] for key in ("clip", "vae")}  # beside what needs them
    workflow = Workflow(
        model=model,
        about=about,
        note=(shows, get or download(files), turn),
        nodes={
            **loaders,
            "prompt": text("A photo of a pet", "Prompt", clip_link),
            "negative": text(negative, "Negative prompt", clip_link),
            "latent": latent(side, 1, RESULT),
            "nasa": nasa(alpha, steered, alpha_mode=alpha_mode),
            "sampler": one_step(Link("nasa"), SEED, preset=preset, timesteps=timesteps),
            **between,
            "decode": Node(type="VAEDecode", inputs={"samples": decoded, "vae": vae_link}, collapsed=True),
        },
        columns=(
            (NOTE, *(key for key in loaders if key not in ("clip", "vae"))),
            (NOTE, *beside["clip"], "prompt"),
            ("negative", ROW, "nasa"),
            ("latent", ROW, "sampler"),
            (*beside["vae"], *between, "decode", "save"),
        ),
    )
    return replace(workflow, nodes={**workflow.nodes, "save": save("decode", "Result", workflow.prefix)})


_ALPHA = "alpha. None is published for this model: try 0.1, 0.3, 0.6; halve it when the picture breaks."
_SWEPT = "alpha (the paper sweeps 0 to 1); halve it when the picture breaks."
_AUTO = (
    'alpha_mode to "as set", then alpha. "auto" takes what your file recommends, else the paper\'s for its kind, '
    "and the node shows it."
)
# PixArt-alpha 512 looks like PixArt-sigma to the host, which scales its latents as SDXL does:
# 0.13025 / 0.18215 = 0.715, and the widget has two digits.
_AS_SD = Node(
    type="LatentMultiply",
    inputs={"samples": Link("sampler"), "multiplier": 0.72},
    title="To PixArt-alpha's latents",
)

PUBLISHED = (
    _published(
        "SD-Turbo",
        "1 step",
        "SD-Turbo in one step, with a negative prompt and no CFG.",
        {"loader": checkpoint(SD_TURBO)},
        preset="SD-Turbo, 1 step",
        turn=_ALPHA,
        side=512,
    ),
    _published(
        "SDXL-Turbo",
        "1 step",
        "SDXL-Turbo in one step, with a negative prompt and no CFG.",
        {"loader": checkpoint(SDXL_TURBO)},
        preset="SDXL-Turbo, 1 step",
        turn=_ALPHA,
        side=512,
    ),
    _published(
        "SDXL-DMD2",
        "1 step",
        "SDXL-DMD2 in one step, at timestep 399. In the paper's Table 7 the dogs go from 60 % of the pictures to none.",
        {"loader": checkpoint(SDXL), "network": network(DMD2_1)},
        preset="SDXL-DMD2, 1 step",
        turn=_SWEPT,
        side=1024,
        negative="dog",
    ),
    _published(
        "SDXL-DMD2",
        "4 steps",
        "SDXL-DMD2 in four steps. In the paper's Table 7 the cats go from 88 % of the pictures to none.",
        {"loader": checkpoint(SDXL), "lora": lora(DMD2_4)},
        preset="SDXL-DMD2, 4 steps",
        turn=_SWEPT,
        side=1024,
    ),
    _published(
        "SDXL-Lightning",
        "4 steps",
        "SDXL-Lightning in four steps, with a negative prompt and no CFG.",
        {"loader": checkpoint(LIGHTNING)},
        preset="SDXL-Lightning, 4 steps",
        turn=_ALPHA,
        side=1024,
    ),
    _published(
        "SDXL LCM-LoRA",
        "4 steps",
        "SDXL with the LCM-LoRA in four steps, with a negative prompt and no CFG.",
        {"loader": checkpoint(SDXL), "lora": lora(LCM_LORA)},
        preset="LCM-LoRA, 4 steps",
        turn=_ALPHA,
        side=1024,
        get=f"{download([SDXL])}\n- [pytorch_lora_weights.safetensors]({LCM_LORA.url}), renamed to {LCM_LORA.name}, "
        f"into models/{LCM_LORA.directory}, from [its page]({LCM_LORA.page})",
    ),
    _published(
        "PixArt-DMD",
        "1 step, 512 px",
        "PixArt-alpha-DMD in one step, at timestep 400 and 512 px.",
        {
            "network": network(PIXART_DMD),
            "clip": _t5(),
            "vae": vae(SD_VAE),
        },
        preset="PixArt-DMD",
        alpha=0.45,
        turn="alpha (0.45 is the paper's).",
        side=512,
        between={"latents": _AS_SD},
        get=f"- [transformer/diffusion_pytorch_model.bin]({PIXART_DMD.url}) by hand, renamed to "
        f"{PIXART_DMD.name}, into models/{PIXART_DMD.directory}, from [its page]({PIXART_DMD.page})\n"
        f"{download([T5, SD_VAE])}",
    ),
    _published(
        "My student",
        "1 step, SD1.5 or SD2.1",
        "A student that you trained (SD1.5 or SD2.1; python -m training.pgsb): its file holds all, recipe included.",
        {"loader": _export()},
        preset="auto",
        alpha_mode="auto",
        turn=_AUTO,
        side=512,
        get=f"nothing: put your export (export/{STUDENT.name} in the run's folder) into models/checkpoints; "
        "choose it in the loader if it has another name.",
    ),
    _published(
        "My PixArt student",
        "1 step",
        "A PixArt-alpha student that you trained: its file holds network, VAE and recipe; T5 is loaded beside it.",
        {"loader": _export(), "clip": _t5()},
        preset="auto",
        alpha_mode="auto",
        turn=_AUTO,
        side=512,
        get=f"- your export (export/{STUDENT.name} in the run's folder) into models/checkpoints\n{download([T5])}",
    ),
    *(
        _published(
            f"My {short} LoRA",
            "4 steps",
            f"A four-step LoRA of {name} that you trained (--recipe {kind}_lora_4step), on your checkpoint.",
            {"loader": checkpoint(base), "lora": lora(file)},
            preset="PG-SB, 4 steps",
            alpha=alpha,
            turn=f"alpha. None is measured for four steps: try {tries}. Load LoRA drops the recipe in the file, so the "
            "preset must be that of your steps.",
            side=side,
            get=f"{download([base])}, or your own\n- your export, renamed to {file.name}, into models/loras",
        )
        for kind, short, name, base, file, side, alpha, tries in (
            ("sdxl", "SDXL", "SDXL", SDXL, LORA_XL, 1024, 0.3, "0.1, 0.3, 0.6"),
            ("sd15", "SD1.5", "Stable Diffusion 1.5", SD15, LORA_15, 512, 0.04, "0.02, 0.04, 0.1"),
        )
    ),
)
