"""Templates for published models against ComfyUI's own: the same files, folders, steps, samplers, sigmas and shifts."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from official_templates import Official, files_of, settings
from templates import NEEDING, api_file, graph_of, named

_FOLDER = Path(pytest.importorskip("comfyui_workflow_templates_json").__file__).parent / "templates"
_LTX_LORA = "ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors"
_LTX_UPSCALED = "of the second stage, which enlarges"
_LTX_SIZE = "one stage, which is not enlarged, is drawn larger; and shorter, at the network's usual rate"
_LTX_IMAGE = "begins with a picture if it has one; switched off"
_ONE_STEP = "One-Step Sampler takes the place of sampler and schedule"
_WRITES = "a language model rewrites the prompt; here the prompt is what stands in its node"


@dataclass(frozen=True, kw_only=True)
class Same:
    """The official template of a model, and how ours differs from it: what, and why."""

    file: str
    subgraph: str = ""
    switches_on: bool = False
    not_ours: dict[tuple[str, str, Any], str] = field(default_factory=dict)
    ours: dict[tuple[str, str, Any], str] = field(default_factory=dict)
    nodes_not_ours: dict[str, str] = field(default_factory=dict)
    files_not_ours: dict[str, str] = field(default_factory=dict)


OFFICIAL = {
    "Wan 2.2 14B": Same(file="video_wan2_2_14B_t2v", subgraph="Text to Video(Wan2.2)", switches_on=True),
    "LTX-2.3": Same(
        file="video_ltx2_3_t2v",
        subgraph="Text to Video (LTX-2.3)",
        not_ours={
            ("CFGGuider", "cfg", 1): _LTX_UPSCALED,
            ("CFGGuider", "model", (None, _LTX_LORA, "ltx-2.3-22b-dev-fp8.safetensors")): _LTX_UPSCALED,
            ("KSamplerSelect", "sampler_name", "euler"): _LTX_UPSCALED,
            ("ManualSigmas", "sigmas", (0.85, 0.725, 0.4219, 0.0)): _LTX_UPSCALED,
            ("EmptyLTXVLatentVideo", "width", 640): _LTX_SIZE,
            ("EmptyLTXVLatentVideo", "height", 360): _LTX_SIZE,
            ("EmptyLTXVLatentVideo", "length", 126): _LTX_SIZE,
            ("LTXVEmptyLatentAudio", "frames_number", 126): _LTX_SIZE,
            ("LTXVEmptyLatentAudio", "frame_rate", 25): _LTX_SIZE,
            ("LTXVConditioning", "frame_rate", 25): _LTX_SIZE,
            ("CreateVideo", "fps", 25): _LTX_SIZE,
        },
        ours={
            ("EmptyLTXVLatentVideo", "width", 768): _LTX_SIZE,
            ("EmptyLTXVLatentVideo", "height", 512): _LTX_SIZE,
            ("EmptyLTXVLatentVideo", "length", 97): _LTX_SIZE,
            ("LTXVEmptyLatentAudio", "frames_number", 97): _LTX_SIZE,
            ("LTXVEmptyLatentAudio", "frame_rate", 24): _LTX_SIZE,
            ("LTXVConditioning", "frame_rate", 24): _LTX_SIZE,
            ("CreateVideo", "fps", 24): _LTX_SIZE,
        },
        nodes_not_ours={
            "LTXVCropGuides": _LTX_UPSCALED,
            "LTXVLatentUpsampler": _LTX_UPSCALED,
            "LatentUpscaleModelLoader": _LTX_UPSCALED,
            "EmptyImage": _LTX_IMAGE,
            "LTXVImgToVideoInplace": _LTX_IMAGE,
            "LTXVPreprocess": _LTX_IMAGE,
            "ResizeImageMaskNode": _LTX_IMAGE,
            "ResizeImagesByLongerEdge": _LTX_IMAGE,
            "LoraLoader": _WRITES,
            "TextGenerateLTX2Prompt": _WRITES,
        },
        files_not_ours={
            "ltx-2.3-spatial-upscaler-x2-1.1.safetensors": _LTX_UPSCALED,
            "gemma-3-12b-it-abliterated_lora_rank64_bf16.safetensors": _WRITES,
        },
    ),
    "Z-Image-Turbo": Same(file="image_z_image_turbo", subgraph="Text to Image (Z-Image-Turbo)"),
    "Qwen-Image": Same(file="image_qwen_image", subgraph="Text to Image (Qwen-Image)", switches_on=True),
    "FLUX.2 Klein": Same(file="image_flux2_klein_text_to_image", subgraph="Text to Image (Flux.2 Klein 4B Distilled)"),
    "Krea 2 Turbo": Same(
        file="image_krea2_turbo_t2i",
        subgraph="Text to Image (Krea-2 Turbo)",
        nodes_not_ours=dict.fromkeys(("TextGenerate", "StringConcatenate", "PreviewAny"), _WRITES),
    ),
    "Anima Turbo": Same(file="image_anima_base_v1", subgraph="Text to Image (Anima Base v1.0)", switches_on=True),
    "SDXL-Turbo": Same(
        file="sdxlturbo_example",
        not_ours={
            ("KSamplerSelect", "sampler_name", "euler_ancestral"): "in one step both return x0",
            ("SamplerCustom", "model", (None, "sd_xl_turbo_1.0_fp16.safetensors")): _ONE_STEP,
        },
        ours={("SnoopiOneStepSampler", "model", (None, "sd_xl_turbo_1.0_fp16.safetensors")): _ONE_STEP},
        nodes_not_ours=dict.fromkeys(("KSamplerSelect", "SDTurboScheduler", "SamplerCustom"), _ONE_STEP),
    ),
}
NONE = {
    "SD-Turbo": "sd_turbo",
    "SDXL-DMD2": "dmd2",
    "SDXL-Lightning": "sdxl_lightning",
    "SDXL LCM-LoRA": "lcm-lora|pytorch_lora_weights",
    "PixArt-DMD": "pixart",
}
"""Models that no template of ComfyUI uses, and what a file of theirs is called."""
_VALUES = {"PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean", "PrimitiveStringMultiline", "ComfyMathExpression"}
"""Nodes that hold values of others, which the settings have."""


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_template_has_the_settings_of_the_official_one(name: str) -> None:
    case = OFFICIAL[name]
    official = Official(_FOLDER / f"{case.file}.json", case.subgraph, switches_on=case.switches_on)
    prompt = json.loads(api_file(named(name)).read_text(encoding="utf-8"))
    theirs, ours = settings(official.runs), settings(prompt)
    assert sum((theirs & ours).values()) >= 2, "nothing was compared"
    assert theirs - ours == Counter(case.not_ours.keys())
    assert ours - theirs == Counter(case.ours.keys())

    classes = {node["class_type"] for node in official.runs.values()} - _VALUES
    assert classes - {node["class_type"] for node in prompt.values()} == set(case.nodes_not_ours)

    files = files_of(graph_of(named(name))["nodes"])
    assert {file for _, file, _ in official.files() - files} == set(case.files_not_ours)
    assert files <= official.files()


def test_every_template_of_a_published_model_is_compared_or_has_no_official_one() -> None:
    published = [name for name in NEEDING if not name.startswith("My ")]
    assert all(name.startswith((*OFFICIAL, *NONE)) for name in published)
    official = [file for file in _FOLDER.glob("*.json") if not file.name.startswith("index.")]
    assert len(official) > 400
    for name, pattern in NONE.items():
        assert any(each.startswith(name) for each in published)
        using = [
            file.name
            for file in official
            if re.search(rf'"[^"]*({pattern})[^"]*\.(safetensors|bin)', file.read_text(encoding="utf-8"), re.I)
        ]
        assert using == [], name
