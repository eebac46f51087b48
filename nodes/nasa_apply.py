"""NASA Apply: a negative prompt for one-step and few-step models."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..snoopi_core.host.conditioning.window import Window
from ..snoopi_core.host.nasa.alpha import auto_alpha
from ..snoopi_core.host.nasa.apply import apply_nasa
from ..snoopi_core.presets import AUTO

AS_SET = "as set"


class NASAApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SnoopiNASAApply",
            display_name="NASA Apply",
            category="SNOOPI",
            description=(
                "Negative-Away Steer Attention: steers a model away from a negative prompt inside its cross-attention. "
                "Works at one step and at cfg 1, for the cost of one extra attention."
            ),
            search_aliases=["NASA", "negative prompt", "negative guidance", "SNOOPI", "one-step negative"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to steer. This node goes anywhere between the loader and the sampler; LoRAs and "
                    "other patches may come before or after it.",
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip="What should not appear, from a CLIP Text Encode of the same model's CLIP. Several "
                    "NASA Apply nodes in a chain each subtract their own; combined prompts are averaged. An empty text "
                    "has an effect too: for no negative, set alpha to 0.",
                ),
                io.Float.Input(
                    "alpha",
                    default=0.3,
                    min=0.0,
                    max=4.0,
                    step=0.01,
                    tooltip="How strongly the negative is subtracted. 0 changes nothing. The paper uses 0.04 for "
                    "SD1.5 and 0.3 for SD2.1 students; too much breaks the image. PG-SB Loader logs the file's "
                    "recommendation.",
                ),
                _percent_input(
                    "start_percent",
                    0.0,
                    "Start of the part of sampling in which NASA acts. 0, the neutral value, is pure noise. "
                    "For one-step models leave it at 0.",
                ),
                _percent_input(
                    "end_percent",
                    1.0,
                    "End of the part of sampling in which NASA acts. 1, the neutral value, is the clean image. "
                    "For one-step models leave it at 1: their only step may lie anywhere, at 0.6 for timestep 399.",
                ),
                io.String.Input(
                    "blocks",
                    default="all",
                    advanced=True,
                    tooltip='Where in the network NASA acts. "all", as in the paper; or a group ("middle"), a block '
                    '("input.1", "block.3"), a range ("output.4-8") or several of them, separated by commas.',
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where in the picture NASA acts: 1 (white) steers away from the negative there, 0 (black) "
                    "changes nothing. Any size. If not connected, NASA acts everywhere.",
                ),
                # Optional, because workflows saved before this input existed lack it.
                io.Combo.Input(
                    "alpha_mode",
                    options=[AS_SET, AUTO],
                    default=AS_SET,
                    optional=True,
                    tooltip='Where alpha comes from. "as set", the neutral value, uses the number above. "auto" uses '
                    "the value measured for this file instead, else the paper's for a PG-SB file, else a guess: the "
                    "lowest published for such networks. The node shows which.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The steered model, for any sampler.")],
            # The steered model knows its node, on which warnings are shown. With this, ComfyUI's cache does not give it
            # the model of another node with the same inputs.
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        negative: io.Conditioning.Type,
        alpha: float,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        blocks: str = "all",
        mask: torch.Tensor | None = None,
        alpha_mode: str = AS_SET,
    ) -> io.NodeOutput:
        alpha_source = ""
        if alpha_mode == AUTO:
            alpha, alpha_source = auto_alpha(model)
        window = Window(start_percent=start_percent, end_percent=end_percent)
        steered = apply_nasa(
            model, negative, alpha=alpha, window=window, blocks=blocks, mask=mask, alpha_source=alpha_source
        )
        return io.NodeOutput(steered)


def _percent_input(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, advanced=True, tooltip=tooltip)
