"""Write docs/MODELS.md, which models NASA steers, from snoopi_core/networks.py: python -m scripts.models_page"""

from __future__ import annotations

from scripts.setup.host import ROOT
from snoopi_core.networks import NETWORKS, Network

PAGE = ROOT / "docs" / "MODELS.md"
SINCE = {
    **dict.fromkeys(("ErnieImageModel", "RTv4", "SAM3Model"), "0.20.1"),
    **dict.fromkeys(("SCAIL2WanModel", "WanDancerModel", "CausalWanModel", "CogVideoXTransformer3DModel"), "0.24.0"),
    **dict.fromkeys(("PixDiT_T2I", "Ideogram4Transformer2DModel", "LensTransformer2DModel"), "0.24.0"),
    **dict.fromkeys(("HiDreamO1Transformer", "PidNet", "LatentSeqMMFlowModel", "DepthAnything3Net"), "0.24.0"),
    **dict.fromkeys(("BooguTransformer2DModel", "SingleStreamDiT", "NaDiT"), "0.27.0"),
    **dict.fromkeys(("MageFlowTransformer2DModel", "JoyImageTransformer3DModel", "MiniMaxH3Model"), "0.30.0"),
}
"""The oldest ComfyUI of those that are tested that has a network; the others are in all, from 0.16.3."""
_HEAD = """# Which models NASA steers

NASA Apply subtracts a negative prompt's response in the attention to the text. Most networks have a layer for it
(*cross-attention*); in others, text and picture share one attention (*joint*), and NASA acts on the text's part of it.
The tables name every network of ComfyUI 0.30.0; a test compares them with the host, so that a network of a newer host
is missed at once. *Since* is the oldest ComfyUI with it, of 0.16.3, 0.20.1, 0.24.0, 0.27.0 and 0.30.0; where there is
none, all have it. How exactly each steered one follows the formula is measured in
[COMPATIBILITY.md](COMPATIBILITY.md), in the rows named here. A refused model is refused by NASA Apply itself, with the
same words.

This page is made from `snoopi_core/networks.py`:

    python -m scripts.models_page
"""
_CROSS = """
## Steered: attention to the text alone

Only the text's own part is steered: tokens of pictures, poses, faces, audio and music stay as they are. Weights in fp8,
scaled fp8, int8, GGUF and the like are used as the host uses them, at the time of each call.

**Two chained models** (Wan 2.2 14B: one for high noise, one for low) have a MODEL wire each, so that each needs a NASA
Apply of its own, with the same negative. The blueprint *Negative prompt at CFG 1 (SNOOPI NASA, two models)* in the node
library is both of them and their text as one node. An acceleration LoRA may stand before or after it.

| models | network | since | measured in the rows | |
| --- | --- | --- | --- | --- |
"""
_JOINT = """
## Steered: joint attention

| models | network | since | measured in the rows | |
| --- | --- | --- | --- | --- |
"""
_REFUSED = """
## Refused

| models | network | since | because |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    cross, joint = (
        "".join(_steered(name, each) for name, each in NETWORKS.items() if each.rows and each.kind == kind)
        for kind in ("cross", "joint")
    )
    refused = "".join(
        f"| {each.models} | `{name}` | {SINCE.get(name, '')} | {each.why} |\n"
        for name, each in NETWORKS.items()
        if not each.rows
    )
    return f"{_HEAD}{_CROSS}{cross}{_JOINT}{joint}{_REFUSED}{refused}{_VIDEO_UNETS}"


_VIDEO_UNETS = "| SVD, SV3D, Zero123 | `UNetModel` |  | their prompt is a picture |\n"


def _steered(name: str, network: Network) -> str:
    return f"| {network.models} | `{name}` | {SINCE.get(name, '')} | {'; '.join(network.rows)} | {network.note} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
