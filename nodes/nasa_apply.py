"""NASA Apply: a negative prompt for one-step and few-step models."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..snoopi_core.guidance.methods import METHOD_NAMES, NASA, make_method
from ..snoopi_core.guidance.nag import BLEND, TAU
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
                "A negative prompt that works for turbo, distilled and one-step models: at cfg 1, where the negative "
                "of an ordinary sampler does nothing. It steers the model away from what should not appear, inside its "
                "attention to the text (Negative-Away Steer Attention), for the cost of one extra attention. Other "
                "methods (NAG, VSF, orthogonal) can be chosen."
            ),
            search_aliases=[
                "negative prompt",
                "one-step negative",
                "negative guidance",
                "turbo negative prompt",
                "sd turbo",
                "sdxl turbo",
                "cfg 1",
                "alpha",
                "NASA",
                "NAG",
                "VSF",
                "SNOOPI",
            ],
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
                    max=20.0,
                    step=0.01,
                    tooltip="How strongly the negative acts. 0 changes nothing. For NASA, the paper uses 0.04 for "
                    "SD1.5 and 0.3 for SD2.1 students, and at most 4 is accepted; too much breaks the image. PG-SB "
                    "Loader logs the file's recommendation. Other methods need other values: see method.",
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
                    "what the model's file recommends instead, else the paper's for a PG-SB file, else a guess: the "
                    "lowest published for such networks. The node shows which. Only for method NASA.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHOD_NAMES),
                    default=NASA.name,
                    optional=True,
                    tooltip="How the negative acts. NASA subtracts it. orthogonal subtracts only what it does not have "
                    "in common with the prompt (alpha as for NASA). NAG extrapolates from it and limits the result: "
                    'alpha is phi, the "NAG scale" of other nodes minus 1, usually 2 to 10. VSF lets both prompts '
                    "compete in one attention and flips the sign of the negative's values: alpha is its scale, usually "
                    "1 to 4.",
                ),
                io.Float.Input(
                    "nag_tau",
                    default=TAU,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Only for NAG: by which factor the response may grow at most. The paper uses 2.5.",
                ),
                io.Float.Input(
                    "nag_blend",
                    default=BLEND,
                    min=0.01,
                    max=1.0,
                    step=0.005,
                    optional=True,
                    advanced=True,
                    tooltip="Only for NAG: the share of its result, the rest is the unmodified response. The paper, "
                    "which calls it alpha, uses 0.375 for SD1.5 and PixArt.",
                ),
                io.Float.Input(
                    "vsf_beta",
                    default=0.0,
                    min=-20.0,
                    max=20.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Only for VSF: subtracted from the attention scores of the negative, so that it draws less "
                    "attention from the prompt. 0 is neutral.",
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
        method: str = NASA.name,
        nag_tau: float = TAU,
        nag_blend: float = BLEND,
        vsf_beta: float = 0.0,
    ) -> io.NodeOutput:
        chosen = make_method(method, nag_tau=nag_tau, nag_blend=nag_blend, vsf_beta=vsf_beta)
        alpha_source = ""
        if alpha_mode == AUTO:
            alpha, alpha_source = auto_alpha(model, chosen)
        window = Window(start_percent=start_percent, end_percent=end_percent)
        steered = apply_nasa(
            model,
            negative,
            alpha=alpha,
            window=window,
            blocks=blocks,
            mask=mask,
            alpha_source=alpha_source,
            method=chosen,
        )
        return io.NodeOutput(steered)


def _percent_input(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, advanced=True, tooltip=tooltip)
