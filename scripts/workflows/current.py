"""Workflows for the few-step models that people run now, with the files and settings of ComfyUI's own templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scripts.workflows.loaders import clip, download, hub_file, lora, network, shift, split_file, vae
from scripts.workflows.parts import NOTE, RESULT, ROW, Link, Node, Workflow, latent, nasa, save, text

_PROMPT, _NEGATIVE = "A photo of a street cafe in the evening", "people"
_NOT_MEASURED = (
    "alpha. Nobody has measured it for this model: {} is a guess; double it while what the negative names stays."
)
# docs/JOINT_ATTENTION.md, "The comparison on pictures".
_JOINT = (
    "alpha. Begin at {}: nobody has measured it on this model. On two small students of such networks, all that was "
    "measured, 0.5 was best, and 0.75 broke most pictures. Lower it when the picture breaks, raise it while what "
    "the negative names stays."
)


def _sd3_latent(side: int) -> Node:
    return Node(type="EmptySD3LatentImage", inputs={"width": side, "height": side, "batch_size": 1})


# The sampler's own negative has no effect at cfg 1, but its input must be connected.
_NOTHING = Node(type="ConditioningZeroOut", inputs={"conditioning": Link("prompt")}, title="Zero Out", collapsed=True)


def _ksampler(steps: int, sampler: str) -> Node:
    links = {
        "model": Link("nasa"),
        "positive": Link("prompt"),
        "negative": Link("nothing"),
        "latent_image": Link("latent"),
    }
    settings = {"seed": 0, "steps": steps, "cfg": 1.0, "sampler_name": sampler, "scheduler": "simple", "denoise": 1.0}
    return Node(type="KSampler", inputs={**links, **settings})


def _picture(
    model: str,
    about: str,
    shows: str,
    loaders: Mapping[str, Node],
    empty: Node,
    sampling: Mapping[str, Node],
    *,
    steered: str,
    alpha: float,
    negative: str = _NEGATIVE,
    turn: str = _JOINT,
) -> Workflow:
    """Loaders, NASA Apply behind the node `steered`, samplers (the last one is "sampler"), VAE Decode, Save Image."""
    files = [file for node in loaders.values() for file in node.files]
    guided = "guider" in sampling
    workflow = Workflow(
        model=model,
        about=about,
        note=(
            f"{shows} ComfyUI's own template uses the same files and settings.",
            download(files),
            turn.format(f"{alpha:g}"),
        ),
        nodes={
            **loaders,
            "prompt": text(_PROMPT, "Prompt", Link("clip")),
            "negative": text(negative, "Negative prompt", Link("clip")),
            "nothing": _NOTHING,
            "latent": replace(empty, group=None if guided else RESULT),
            "nasa": nasa(alpha, Link(steered)),
            **sampling,
            "decode": Node(type="VAEDecode", inputs={"samples": Link("sampler"), "vae": Link("vae")}, collapsed=True),
        },
        columns=(
            (NOTE, *(key for key in loaders if key not in ("clip", "vae")), *(["latent"] if guided else [])),
            (NOTE, "clip", "prompt", "nothing"),
            ("negative", ROW, "nasa"),
            ("noise", ROW, "guider", "method", "sigmas", "vae") if guided else ("latent", ROW, "sampler"),
            ("sampler", "decode", "save") if guided else ("vae", "decode", "save"),
        ),
    )
    return replace(workflow, nodes={**workflow.nodes, "save": save("decode", "Result", workflow.prefix)})


_Z_IMAGE = "Comfy-Org/z_image_turbo"
_QWEN_IMAGE = "Comfy-Org/Qwen-Image_ComfyUI"
_KLEIN = "Comfy-Org/flux2-klein"
_KREA = "Comfy-Org/Krea-2"
_ANIMA = "circlestone-labs/Anima"

_FLUX_2_SAMPLING: dict[str, Node] = {
    "guider": Node(
        type="CFGGuider",
        inputs={"model": Link("nasa"), "positive": Link("prompt"), "negative": Link("nothing"), "cfg": 1.0},
    ),
    "noise": Node(type="RandomNoise", inputs={"noise_seed": 0}),
    "method": Node(type="KSamplerSelect", inputs={"sampler_name": "euler"}),
    "sigmas": Node(type="Flux2Scheduler", inputs={"steps": 4, "width": 1024, "height": 1024}),
    "sampler": Node(
        type="SamplerCustomAdvanced",
        inputs={
            "noise": Link("noise"),
            "guider": Link("guider"),
            "sampler": Link("method"),
            "sigmas": Link("sigmas"),
            "latent_image": Link("latent"),
        },
    ),
}

PICTURES = (
    _picture(
        "Z-Image-Turbo",
        "8 steps",
        "Z-Image-Turbo in eight steps at cfg 1, with a negative prompt that acts.",
        {
            "network": network(split_file("diffusion_models", _Z_IMAGE, "z_image_turbo_bf16")),
            "clip": clip(split_file("text_encoders", _Z_IMAGE, "qwen_3_4b"), "lumina2"),
            "vae": vae(split_file("vae", _Z_IMAGE, "ae")),
            "shift": shift("AuraFlow", Link("network"), 3.0),
        },
        _sd3_latent(1024),
        {"sampler": _ksampler(8, "res_multistep")},
        steered="shift",
        alpha=0.5,
    ),
    _picture(
        "Qwen-Image",
        "Lightning LoRA, 8 steps",
        "Qwen-Image with the Lightning LoRA in eight steps at cfg 1, with a negative prompt that acts.",
        {
            "network": network(split_file("diffusion_models", _QWEN_IMAGE, "qwen_image_fp8_e4m3fn")),
            "lora": lora(
                hub_file("loras", "lightx2v/Qwen-Image-Lightning", "Qwen-Image-Lightning-8steps-V1.0.safetensors"),
                Link("network"),
            ),
            "clip": clip(
                split_file("text_encoders", _QWEN_IMAGE, "qwen_2.5_vl_7b_fp8_scaled"),
                "qwen_image",
            ),
            "vae": vae(split_file("vae", _QWEN_IMAGE, "qwen_image_vae")),
            "shift": shift("AuraFlow", Link("lora"), 3.1),
        },
        _sd3_latent(1328),
        {"sampler": _ksampler(8, "euler")},
        steered="shift",
        alpha=0.5,
    ),
    _picture(
        "FLUX.2 Klein",
        "4 steps",
        "FLUX.2 Klein 4B in four steps at cfg 1, with a negative prompt that acts.",
        {
            "network": network(split_file("diffusion_models", _KLEIN, "flux-2-klein-4b")),
            "clip": clip(split_file("text_encoders", _KLEIN, "qwen_3_4b"), "flux2"),
            "vae": vae(split_file("vae", "Comfy-Org/flux2-dev", "flux2-vae")),
        },
        Node(type="EmptyFlux2LatentImage", inputs={"width": 1024, "height": 1024, "batch_size": 1}),
        _FLUX_2_SAMPLING,
        steered="network",
        alpha=0.5,
    ),
    _picture(
        "Krea 2 Turbo",
        "8 steps",
        "Krea 2 Turbo in eight steps at cfg 1, with a negative prompt that acts. Needs ComfyUI 0.30.0 or newer.",
        {
            "network": network(
                hub_file("diffusion_models", _KREA, "diffusion_models/krea2_turbo_fp8_scaled.safetensors")
            ),
            "clip": clip(hub_file("text_encoders", _KREA, "text_encoders/qwen3vl_4b_fp8_scaled.safetensors"), "krea2"),
            "vae": vae(hub_file("vae", _KREA, "vae/qwen_image_vae.safetensors")),
        },
        latent(1024, 1),
        {"sampler": _ksampler(8, "euler")},
        steered="network",
        alpha=0.5,
    ),
    _picture(
        "Anima Turbo",
        "turbo LoRA, 8 steps",
        "Anima with its turbo LoRA in eight steps at cfg 1, with a negative prompt that acts.",
        {
            "network": network(split_file("diffusion_models", _ANIMA, "anima-base-v1.0")),
            "lora": lora(
                hub_file("loras", "circlestone-labs/Anima-Official-LoRAs", "anima-turbo-lora-v0.2.safetensors"),
                Link("network"),
            ),
            "clip": clip(
                split_file("text_encoders", _ANIMA, "qwen_3_06b_base"),
                "stable_diffusion",
            ),
            "vae": vae(split_file("vae", _ANIMA, "qwen_image_vae")),
        },
        latent(1024, 1),
        {"sampler": _ksampler(8, "euler")},
        steered="lora",
        alpha=0.3,
        turn=_NOT_MEASURED,  # a cross-attention of its own for the text
    ),
)
