"""Workflows for few-step video models, with the files and settings of ComfyUI's own templates."""

from __future__ import annotations

from dataclasses import replace

from scripts.workflows.loaders import checkpoint, clip, download, hub_file, lora, network, shift, split_file, vae
from scripts.workflows.parts import (
    LOADER,
    MODEL,
    NOTE,
    PICTURE,
    PROMPTS,
    RESULT,
    ROW,
    TEXT,
    VAE,
    Link,
    Node,
    Workflow,
    nasa,
    text,
)

_WAN = "Comfy-Org/Wan_2.2_ComfyUI_Repackaged"
_PROMPT, _NEGATIVE = "A quiet street in the evening, a cat walks by", "cars"
_TURN = (
    "alpha{}. Nobody has measured it for this model: 0.3 is a guess; double it while the unwanted stays, halve "
    "it when the picture breaks."
)


def _wan_half(noise: str) -> dict[str, Node]:
    """One of the two networks: it, its acceleration LoRA, its schedule and NASA Apply."""
    network_file = split_file("diffusion_models", _WAN, f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled")
    lora_file = split_file("loras", _WAN, f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{noise}_noise")
    return {
        f"network_{noise}": network(network_file),
        f"lora_{noise}": lora(lora_file, Link(f"network_{noise}")),
        f"shift_{noise}": replace(shift("SD3", Link(f"lora_{noise}"), 5.0), collapsed=True),
        f"nasa_{noise}": nasa(0.3, Link(f"shift_{noise}"), title=f"NASA Apply, {noise} noise"),
    }


def _wan_sampler(noise: str, samples: str, steps: tuple[int, int], *, first: bool) -> Node:
    links = {"model": Link(f"nasa_{noise}"), "positive": Link("prompt"), "negative": Link("negative")}
    noise_settings = {
        "add_noise": "enable" if first else "disable",
        "noise_seed": 0,
        "return_with_leftover_noise": "enable" if first else "disable",
    }
    settings = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    part = {"start_at_step": steps[0], "end_at_step": steps[1]}
    inputs = {**links, "latent_image": Link(samples), **noise_settings, **settings, **part}
    return Node(type="KSamplerAdvanced", inputs=inputs, title=f"Steps {steps[0] + 1} and {steps[1]}")


def _save_video(images: str, rate: float, prefix: str, audio: str = "") -> dict[str, Node]:
    sound = {"audio": Link(audio)} if audio else {}
    inputs = {"video": Link("video"), "filename_prefix": f"video/snoopi_{prefix}", "format": "auto", "codec": "auto"}
    return {
        "video": Node(
            type="CreateVideo", inputs={"images": Link(images), "fps": rate, "bit_depth": 8, **sound}, collapsed=True
        ),
        "save": Node(type="SaveVideo", inputs=inputs, title="Result", size=(PICTURE[0], 130)),
    }


_HIGH, _LOW = _wan_half("high"), _wan_half("low")
_UMT5 = split_file("text_encoders", "Comfy-Org/Wan_2.1_ComfyUI_repackaged", "umt5_xxl_fp8_e4m3fn_scaled")
_WAN_LOADERS = {
    **{key: node for key, node in {**_HIGH, **_LOW}.items() if not key.startswith("nasa")},
    "clip": clip(_UMT5, "wan"),
    "vae": replace(vae(split_file("vae", _WAN, "wan_2.1_vae")), collapsed=True),  # no other works
}
WAN = Workflow(
    model="Wan 2.2 14B",
    about="lightx2v, 4 steps, video",
    tight=True,
    note=(
        "Wan 2.2 14B with the lightx2v LoRAs: two networks, two steps each, at cfg 1. Each needs its own NASA Apply, "
        "with the same negative.",
        download(file for node in _WAN_LOADERS.values() for file in node.files),
        _TURN.format(" of both"),
    ),
    nodes={
        **_WAN_LOADERS,
        "prompt": replace(text(_PROMPT, "Prompt", Link("clip")), size=(290, TEXT[1])),  # a wide column: a low note
        "negative": replace(text(_NEGATIVE, "Negative prompt", Link("clip")), size=(TEXT[0], 90)),
        "latent": Node(
            type="EmptyHunyuanLatentVideo",
            inputs={"width": 640, "height": 640, "length": 81, "batch_size": 1},
            size=(LOADER[0], 146),
            group=RESULT,
        ),
        "nasa_high": _HIGH["nasa_high"],
        "nasa_low": _LOW["nasa_low"],
        "first": _wan_sampler("high", "latent", (0, 2), first=True),
        "second": _wan_sampler("low", "first", (2, 4), first=False),
        "decode": Node(type="VAEDecode", inputs={"samples": Link("second"), "vae": Link("vae")}, collapsed=True),
        **_save_video("decode", 16.0, "wan"),
    },
    columns=(
        ("network_high", "lora_high", "shift_high", "network_low", "lora_low", "shift_low"),
        ("clip", "prompt", NOTE),
        ("negative", "nasa_high", 520, "nasa_low"),  # as low as it must be, so that all is seen at 57 %
        ("latent", 216, "first", 808, "vae"),  # room for wires above the sampler
        ("second", 580, "decode", "video", "save"),
    ),
)

_LTX = hub_file("checkpoints", "Lightricks/LTX-2.3-fp8", "ltx-2.3-22b-dev-fp8.safetensors")
_DISTILLED = split_file("loras", "Comfy-Org/ltx-2.3", "ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16")
_GEMMA = split_file("text_encoders", "Comfy-Org/ltx-2", "gemma_3_12B_it_fp4_mixed")
_FRAMES, _RATE = 97, 24.0
LTX = Workflow(
    model="LTX-2.3",
    about="distilled, 8 steps, video and sound",
    note=(
        "LTX-2.3 with its distilled LoRA in eight steps at cfg 1: video and sound, and a negative prompt that acts on "
        'both. For the video alone, set blocks of NASA Apply to "video". This is the first stage of ComfyUI\'s own '
        "template; in the second stage, the guider takes the model from NASA Apply too.",
        download([_LTX, _DISTILLED, _GEMMA]),
        _TURN.format(""),
    ),
    nodes={
        "loader": checkpoint(_LTX),
        "lora": lora(_DISTILLED, MODEL, 0.5),
        "clip": Node(
            type="LTXAVTextEncoderLoader",
            inputs={"text_encoder": _GEMMA.name, "ckpt_name": _LTX.name, "device": "default"},
            size=(268, TEXT[1]),  # for its title
            files=(_GEMMA, _LTX),
            group=PROMPTS,
        ),
        "audio_vae": Node(
            type="LTXVAudioVAELoader", inputs={"ckpt_name": _LTX.name}, size=(LOADER[0], 60), files=(_LTX,)
        ),
        "prompt": text(_PROMPT, "Prompt", Link("clip")),
        "negative": text(_NEGATIVE, "Negative prompt", Link("clip")),
        "rate": Node(
            type="LTXVConditioning",
            inputs={"positive": Link("prompt"), "negative": Link("negative"), "frame_rate": _RATE},
            group=RESULT,
        ),
        "video_latent": Node(
            type="EmptyLTXVLatentVideo",
            inputs={"width": 768, "height": 512, "length": _FRAMES, "batch_size": 1},
            group=RESULT,
        ),
        "audio_latent": Node(
            type="LTXVEmptyLatentAudio",
            inputs={"frames_number": _FRAMES, "frame_rate": _RATE, "batch_size": 1, "audio_vae": Link("audio_vae")},
            group=RESULT,
        ),
        "latent": Node(
            type="LTXVConcatAVLatent",
            inputs={"video_latent": Link("video_latent"), "audio_latent": Link("audio_latent")},
            group=RESULT,
        ),
        "nasa": nasa(0.3, Link("lora")),
        "guider": Node(
            type="CFGGuider",
            inputs={"model": Link("nasa"), "positive": Link("rate", 0), "negative": Link("rate", 1), "cfg": 1.0},
        ),
        "noise": Node(type="RandomNoise", inputs={"noise_seed": 0}),
        "method": Node(type="KSamplerSelect", inputs={"sampler_name": "euler"}),
        "sigmas": Node(
            type="ManualSigmas",
            inputs={"sigmas": "1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0"},
        ),
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
        "separate": Node(
            type="LTXVSeparateAVLatent", inputs={"av_latent": Link("sampler")}, title="Separate", collapsed=True
        ),
        "decode": Node(
            type="VAEDecodeTiled",
            inputs={
                "samples": Link("separate"),
                "vae": VAE,
                "tile_size": 768,
                "overlap": 64,
                "temporal_size": 4096,
                "temporal_overlap": 4,
            },
            title="Decode video",
            collapsed=True,
        ),
        "sound": Node(
            type="LTXVAudioVAEDecode",
            inputs={"samples": Link("separate", 1), "audio_vae": Link("audio_vae")},
            title="Decode sound",
            collapsed=True,
        ),
        **_save_video("decode", _RATE, "ltx", "sound"),
    },
    columns=(
        ("loader", "lora", "audio_vae", "clip", "prompt"),
        ("negative", ROW + 12, "nasa", NOTE),  # room for a wire more above NASA Apply
        ("rate", "video_latent", "audio_latent", 504, "latent", 628, NOTE),  # room for wires above the last two
        ("noise", ROW + 12, "guider", "method", "sigmas", NOTE),
        ("sampler", "separate", "decode", "sound", "video", "save"),
    ),
)
VIDEOS = (WAN, LTX)
