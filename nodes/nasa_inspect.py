"""NASA Inspect: measures the effect of a negative prompt, layer by layer."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..snoopi_core.host.inspect import inspect
from ..snoopi_core.presets import AUTO
from .sampling_inputs import preset_input, seed_input


class NASAInspect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SnoopiNASAInspect",
            display_name="NASA Inspect",
            category="SNOOPI",
            description=(
                "Says whether a negative prompt is OK, too weak or too strong: runs the model of NASA Apply once and "
                "shows, for each layer, how strong the negative is, how much it differs from the prompt, and how much "
                "it changes."
            ),
            search_aliases=[
                "check negative prompt",
                "debug negative",
                "does nothing",
                "too strong",
                "alpha",
                "NASA strength",
                "attention chart",
                "SNOOPI",
            ],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The steered model: the output of NASA Apply, after any other patches."
                ),
                io.Conditioning.Input("positive", tooltip="What to draw; the same prompt as for the sampler."),
                io.Latent.Input(
                    "latent_image",
                    tooltip="Sets the size and the number of pictures, as for the sampler; its content is not used. "
                    "One picture is enough; more give a better mean.",
                ),
                seed_input("Seed of the noise, as for the sampler. Other seeds change the numbers a little."),
                preset_input(
                    'Which step to measure: the first of One-Step Sampler\'s preset. "auto", the neutral value, '
                    "uses the recipe stored in a PG-SB checkpoint, else the step from pure noise; it works for every "
                    "model that NASA Apply supports."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="chart", tooltip="The verdict in words, and bars for each layer."),
                io.String.Output(
                    display_name="report", tooltip="The verdict and a table of all numbers, for Preview as Text."
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        latent_image: io.Latent.Type,
        seed: int,
        preset: str = AUTO,
    ) -> io.NodeOutput:
        chart, report = inspect(model, positive, latent_image, seed=seed, preset=preset)
        return io.NodeOutput(chart, report, ui=ui.PreviewImage(chart, cls=cls))
