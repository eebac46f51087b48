"""NASA Scale Sweep: the same picture at several strengths, side by side."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ..snoopi_core.guidance.alpha import parse_sweep
from ..snoopi_core.host.sweep import sweep
from ..snoopi_core.presets import AUTO
from .sampling_inputs import preset_input, seed_input, timesteps_input


class NASAScaleSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SnoopiNASAScaleSweep",
            display_name="NASA Scale Sweep",
            category="SNOOPI",
            description=(
                "Helps to choose how strong a negative prompt should be: draws the same picture at several strengths "
                "(alpha) or with several methods, side by side on one page, and marks the strength to start with if "
                "one is known for the model."
            ),
            search_aliases=[
                "compare alpha",
                "alpha sweep",
                "negative prompt strength",
                "NASA strength",
                "XY plot",
                "contact sheet",
                "SNOOPI",
            ],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to try the strengths on, from its loader or after LoRAs. No NASA Apply is "
                    "needed before this node; if there is one, it acts in every picture too.",
                ),
                io.Conditioning.Input("positive", tooltip="What to draw, from a CLIP Text Encode."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="What should not appear, from a CLIP Text Encode of the same model's CLIP; what you will "
                    "connect to NASA Apply.",
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip="Sets the size and the number of pictures at each alpha, usually with Empty Latent Image. "
                    "With several, each has its own row.",
                ),
                io.Vae.Input("vae", tooltip="Turns the results into pictures; the model's own VAE."),
                io.String.Input(
                    "alphas",
                    default="0, 0.25, 0.5, 1",
                    tooltip='The strengths: numbers with a decimal point, separated by commas ("0, 0.25, 0.5, 1"), or '
                    'a range ("0..1 step 0.25"). 0 is the model without the negative, useful for comparison. To '
                    'compare methods, name them: "NASA: 0, 0.5, 1; NAG: 2, 4; VSF: 1, 2; orthogonal: 1".',
                ),
                seed_input(
                    "Seed of the noise, which is the same for all alphas. A sampler with this seed gives the same "
                    "pictures."
                ),
                timesteps_input(
                    'As in One-Step Sampler: "auto", the neutral value, uses those of the preset; or one timestep '
                    '("399"), or several decreasing ones; not a number of steps.',
                    optional=True,
                ),
                preset_input(
                    'As in One-Step Sampler: which model this is. "auto", the neutral value, uses the recipe stored '
                    "in a PG-SB checkpoint, else the last timestep in one step."
                ),
                io.Sampler.Input(
                    "sampler",
                    optional=True,
                    tooltip="For models of several steps without a preset in One-Step Sampler: from KSamplerSelect, "
                    "together with sigmas. Sampled at cfg 1. If not connected, samples like One-Step Sampler.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Steps for the sampler, from a scheduler node such as Basic Scheduler. If not connected, "
                    "samples like One-Step Sampler.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="All pictures on one page, each under its alpha."),
                io.Image.Output(
                    display_name="images",
                    tooltip="The single pictures in full size: all of the first alpha, then all of the second ...",
                ),
                # Last, because saved workflows number the outputs.
                io.Float.Output(
                    display_name="sweet_spot",
                    tooltip="The alpha that is marked on the page, for NASA Apply: the largest in the list that is not "
                    "above the one known for this model, from its file or the paper. If none is known, nothing is "
                    "marked, and nodes connected here do not run.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, alphas: str | None = None) -> bool | str:
        """Check the text of `alphas` before anything runs; None means that another node provides it.

        Only `alphas`, because the host shows the message once for each argument of this method; `timesteps` is checked
        when the node runs, before the first picture.
        """
        try:
            parse_sweep("0" if alphas is None else alphas)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        latent_image: io.Latent.Type,
        vae: io.Vae.Type,
        alphas: str,
        seed: int,
        timesteps: str = AUTO,
        preset: str = AUTO,
        sampler: io.Sampler.Type | None = None,
        sigmas: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        sheet, images, spot = sweep(
            model,
            positive,
            negative,
            latent_image,
            vae,
            strengths=parse_sweep(alphas),
            seed=seed,
            timesteps=timesteps,
            preset=preset,
            sampler=sampler,
            sigmas=sigmas,
        )
        alpha = ExecutionBlocker(f"NASA Scale Sweep: {spot.reason}") if spot.alpha is None else spot.alpha
        return io.NodeOutput(sheet, images, alpha, ui=ui.PreviewImage(sheet, cls=cls))
