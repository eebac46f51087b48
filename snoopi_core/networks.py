"""Every diffusion network of ComfyUI, by the name of its class: whether NASA steers it, and if not, why.

docs/MODELS.md is made from this table (`python -m scripts.models_page`), and
NASA Apply's refusals quote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_PICTURE = "it has no text: its prompt is a picture"
_NO_REFERENCES = "a mask only without reference pictures and poses, whose tokens have no place in the picture"
_NOT_DIFFUSION = "it generates nothing, so there is nothing to steer"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network class.

    models: published models that use it.
    kind: its attention to the text: a layer of its own ("cross"), one with the picture's ("joint"), or none ("none").
    rows: of docs/COMPATIBILITY.md, with the measured errors; empty if NASA refuses it.
    why: the reason for a refusal, as a part of a sentence.
    note: what a reader should know of a steered one.
    """

    models: str
    kind: Literal["cross", "joint", "none"]
    rows: tuple[str, ...] = ()
    why: str = ""
    note: str = ""


def _cross(models: str, *rows: str, note: str = "") -> Network:
    return Network(models=models, kind="cross", rows=rows, note=note)


def _joint(models: str, *rows: str, why: str = "", note: str = "") -> Network:
    return Network(models=models, kind="joint", rows=rows, why=why, note=note)


def _none(models: str, why: str) -> Network:
    return Network(models=models, kind="none", why=why)


NETWORKS: dict[str, Network] = {
    # Attention to the text alone
    "UNetModel": _cross(
        "SD1.x, SD2.x, SDXL and its refiner, SSD-1B, Segmind Vega, KOALA, inpainting, instruct-pix2pix, LotusD",
        *("UNet SD1.5", "UNet SD2.1", "UNet SD2.1, v", "UNet SDXL", "UNet SDXL refiner", "UNet SSD-1B"),
        "UNet Segmind Vega",
        note="refused: SVD, SV3D and Zero123, whose prompt is a picture",
    ),
    "PixArtMS": _cross("PixArt-alpha, PixArt-sigma", "PixArt-alpha 512", "PixArt-alpha 1024", "PixArt-sigma"),
    "HunYuanDiT": _cross("HunyuanDiT 1.1, 1.2", "HunyuanDiT 1.1", "HunyuanDiT 1.2"),
    "MiniTrainDIT": _cross("Cosmos-Predict2", "Cosmos-Predict2"),
    "Anima": _cross("Anima", "Anima"),
    "WanModel": _cross(
        "Wan 2.1 and 2.2: text to video, image to video, TI2V, Fun-Control, Fun-Inpaint, Phantom, Bernini, FlowRVS",
        *("Wan 2.1 T2V", "Wan 2.1 I2V", "Wan 2.1 Fun-Control"),
        note="two chained models (high and low noise) need a NASA Apply each; a mask only without reference pictures",
    ),
    "VaceWanModel": _cross(
        "Wan 2.1 and 2.2 VACE",
        "Wan 2.1 VACE",
        note="its second list of blocks is called vace; a reference picture is its first frame, for a mask too",
    ),
    "CameraWanModel": _cross("Wan 2.1 and 2.2 Camera", "Wan 2.1 Camera"),
    "WanModel_S2V": _cross("Wan 2.2 S2V (speech to video)", "Wan 2.2 S2V", note=_NO_REFERENCES),
    "HumoWanModel": _cross("HuMo", "Wan 2.1 HuMo", note=_NO_REFERENCES),
    "AnimateWanModel": _cross("Wan 2.2 Animate", "Wan 2.2 Animate"),
    "SCAILWanModel": _cross("SCAIL", "Wan 2.1 SCAIL", note=_NO_REFERENCES),
    "SCAIL2WanModel": _cross("SCAIL-2", "Wan 2.1 SCAIL-2", note=_NO_REFERENCES),
    "WanDancerModel": _cross("WanDancer", "WanDancer"),
    "CausalWanModel": _cross(
        "Causal Forcing, Self-Forcing (autoregressive Wan 2.1)",
        "Wan 2.1 Causal",
        note="no VSF: it needs the prompt, which is not there after the first frames",
    ),
    "LTXVModel": _cross("LTX-Video 0.9", "LTXV", "LTXV, modulated text"),
    "LTXAVModel": _cross(
        "LTX-2, LTX-2.3, LTX-2.5",
        "LTX-2",
        "LTX-2.3",
        note="both streams by default; blocks video or audio choose one; a mask needs video; in stages, with guides "
        "and in windows of frames (ComfyUI does not sample them in tiles); 2.5 was not tried itself",
    ),
    "Kandinsky5": _cross("Kandinsky 5 image and video", "Kandinsky 5 image", "Kandinsky 5 video"),
    "AudioDiffusionTransformer": _cross(
        "Stable Audio 1 (Open), Stable Audio 3",
        "Stable Audio 1",
        "Stable Audio 3",
        note="the clip's times are tokens of each prompt; no masks; no VSF in Stable Audio 3, whose attention to the "
        "text is the difference of two",
    ),
    "ACEStepTransformer2DModel": _cross(
        "ACE-Step 1", "ACE-Step 1", note="tags, lyrics and voice are one sequence, of the negative too; no masks"
    ),
    "AceStepConditionGenerationModel": _cross(
        "ACE-Step 1.5",
        "ACE-Step 1.5",
        note="tags, lyrics and timbre are one sequence, of the negative too; no masks; in a batch, ComfyUI gives the "
        "timbres of all rows to the first, with or without NASA",
    ),
    "GeneralDIT": Network(
        models="Cosmos 1",
        kind="cross",
        why="its attention to the text keeps tokens in front of the batch, which is not implemented: there is no "
        "few-step version of these models",
    ),
    # Joint attention
    "OpenAISignatureMMDITWrapper": _joint("SD3, SD3.5", "SD3", "SD3.5 medium"),
    "MMDiT": _joint("AuraFlow", "AuraFlow"),
    "Flux": _joint(
        "Flux.1, Flux.2, Klein, Kontext, Flux inpainting, LongCat-Image",
        *("Flux", "Flux schnell", "Flux 2", "LongCat-Image"),
    ),
    "Chroma": _joint("Chroma", "Chroma"),
    "ChromaRadiance": _joint("Chroma Radiance", "Chroma Radiance"),
    "HunyuanVideo": _joint("HunyuanVideo, HunyuanVideo 1.5, HunyuanImage 2.1", "HunyuanVideo", "HunyuanImage 2.1"),
    "AsymmDiTJoint": _joint("Mochi", "Mochi"),
    "CogVideoXTransformer3DModel": _joint("CogVideoX", "CogVideoX"),
    "NextDiT": _joint(
        "Lumina 2, Z-Image",
        "Lumina 2",
        "Z-Image",
        note="refused with reference pictures, which bring text of their own",
    ),
    "NextDiTPixelSpace": _joint("Z-Image in pixel space", "Z-Image in pixel space"),
    "PixDiT_T2I": _joint("PixelDiT", "PixelDiT"),
    "HiDreamImageTransformer2DModel": _joint(
        "HiDream-I1",
        "HiDream-I1",
        note="refused: HiDream-E1, whose reference picture stands between the picture's rows",
    ),
    "OmniGen2Transformer2DModel": _joint("OmniGen2", "OmniGen 2"),
    "BooguTransformer2DModel": _joint("Boogu-Image", "Boogu-Image"),
    "QwenImageTransformer2DModel": _joint("Qwen-Image, Qwen-Image-Edit", "Qwen-Image"),
    "MageFlowTransformer2DModel": _joint("Mage-Flow", "Mage-Flow"),
    "JoyImageTransformer3DModel": _joint("JoyImage", "JoyImage"),
    "Ideogram4Transformer2DModel": _joint("Ideogram 4", "Ideogram 4"),
    "SingleStreamDiT": _joint("Krea 2", "Krea 2"),
    "LensTransformer2DModel": _joint("Lens", "Lens"),
    "MiniMaxH3Model": _joint("MiniMax H3", "MiniMax H3", note="video and sound together; no masks"),
    "ErnieImageModel": _joint(
        "ERNIE-Image", why="its blocks hand no options to their attention, so that NASA cannot reach it"
    ),
    "HiDreamO1Transformer": _joint(
        "HiDream-O1", why="its text does not attend to the picture, as NASA's formula for joint attention needs it"
    ),
    "PidNet": _joint(
        "PiD", why="it decodes another model's picture, and its text has little to do with what the picture shows"
    ),
    "StageC": _joint(
        "Stable Cascade, stage C",
        why="its attention joins the picture's own tokens to the text's, in a layout that is not implemented",
    ),
    "StageB": _none(
        "Stable Cascade, stage B", "it sees no words, only one vector for the whole prompt, beside the picture's tokens"
    ),
    "NaDiT": _none("SeedVR2", "its text is always the same: it only enlarges videos"),
    # No attention to a text
    "Hunyuan3Dv2": _none("Hunyuan3D 2", _PICTURE),
    "HunYuanDiTPlain": _none("Hunyuan3D 2.1", _PICTURE),
    "LatentSeqMMFlowModel": _none("TripoSplat", _PICTURE),
    "RTv4": _none("RT-DETR 4", _NOT_DIFFUSION),
    "DepthAnything3Net": _none("Depth Anything 3", _NOT_DIFFUSION),
    "SAM3Model": _none("SAM 3", _NOT_DIFFUSION),
}

MODELS_WITH_A_PICTURE = frozenset({"SVD_img2vid", "SV3D_u", "SV3D_p", "Stable_Zero123"})
"""The host's classes of models that run a `UNetModel` and give it a picture in the text's place."""
_NO_ATTENTION = "it has no attention to a text"
_UNKNOWN = "this network is not in SNOOPI's table; it may be newer than this version of SNOOPI"


def why_refused(network: str, model: str) -> str:
    """Why NASA does not steer a network, for the end of a sentence.

    Args:
        network: name of the network's class.
        model: name of the host's class of the model around it.
    """
    if model in MODELS_WITH_A_PICTURE:
        return _PICTURE
    row = NETWORKS.get(network)
    if row is None:
        return _UNKNOWN
    return row.why or _NO_ATTENTION
