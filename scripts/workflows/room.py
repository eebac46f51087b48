"""How high nodes may become after a run, so that the layout leaves room for it; in pixels of the canvas.

They grow by a sampler's preview, NASA Apply's text, a picture or the bar of a missing file; in Nodes 2.0
rows are taller. Older front ends (1.39, of ComfyUI 0.16.3) show the preview of a sampler in a subgraph on the
subgraph's node, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from scripts.workflows.parts import NOTE, Node, Subgraph

# Heights in any renderer and front end, where they are more than in the file. tests/live/browser/ notices others.
TALLEST = {
    "SnoopiOneStepSampler": 438, "KSampler": 510, "KSamplerAdvanced": 546, "SamplerCustomAdvanced": 362,
    "SnoopiNASAApply": 340, "SnoopiPGSBLoader": 178, "CheckpointLoaderSimple": 126, "LoraLoaderModelOnly": 114,
    "CLIPLoader": 114, "LTXAVTextEncoderLoader": 114, "VAELoader": 86, "LTXVAudioVAELoader": 86,
    "EmptyLatentImage": 118, "EmptySD3LatentImage": 118, "EmptyFlux2LatentImage": 118, "LTXVEmptyLatentAudio": 118,
    "EmptyHunyuanLatentVideo": 146, "EmptyLTXVLatentVideo": 146, "Flux2Scheduler": 118, "SaveImage": 302,
}  # fmt: skip
WIRES = 26
PREVIEW, ROWS, TEXT = 220, 36, 50  # of a subgraph's node: a preview; taller rows, or NASA Apply's text instead


def room(
    nodes: Mapping[str, Node], heights: Mapping[str, float], subgraphs: Mapping[str, Subgraph] | None = None
) -> dict[str, float]:
    """The height to leave for each of `heights`, the nodes' in the file and the note's, below which wires pass.

    `nodes` has those in `subgraphs`, too.
    """
    found = {key: height + (WIRES if key == NOTE else 0) for key, height in heights.items()}
    for key in heights:
        if key in nodes:
            found[key] = 0 if nodes[key].collapsed else max(heights[key], TALLEST.get(nodes[key].type, 0))
        elif key in (subgraphs or {}):
            kinds = [nodes[inner].type for inner in subgraphs[key].keys]
            previews = any("Sampler" in kind for kind in kinds)
            found[key] += (PREVIEW if previews else 0) + (TEXT if "SnoopiNASAApply" in kinds else ROWS)
    return found
