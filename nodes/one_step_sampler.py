"""One-Step Sampler: an image from noise in one step of a one-step model, or a few."""

from __future__ import annotations

from comfy_api.latest import io

from ..snoopi_core.host.one_step import one_step
from ..snoopi_core.one_step import parse_timesteps
from ..snoopi_core.presets import AUTO
from .sampling_inputs import preset_input, seed_input, timesteps_input


class OneStepSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SnoopiOneStepSampler",
            display_name="One-Step Sampler",
            category="SNOOPI",
            description=(
                "A sampler for turbo, distilled and one-step models (SD-Turbo, SDXL-Turbo, Lightning, DMD2, LCM and "
                "others): samples as the model was trained, with its own timesteps, noise and steps, and the positive "
                "prompt only. A preset for each published model contains these settings."
            ),
            search_aliases=[
                "one step",
                "few step",
                "sd turbo",
                "sdxl turbo",
                "turbo sampler",
                "DMD2",
                "LCM",
                "Lightning",
                "Hyper-SD",
                "PG-SB",
                "SNOOPI",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A one-step or few-step model, from PG-SB Loader or any other loader, with or without "
                    "NASA Apply in between.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="What to draw. There is no negative input, because guidance does not work at one step: "
                    "put NASA Apply before this node.",
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip="Sets the size and the number of images, usually with Empty Latent Image. A picture in it "
                    "is kept only where its noise mask says so (inpainting).",
                ),
                seed_input(
                    "Seed of the noise: the same seed and inputs give the same image, bit for bit.", next_seed=True
                ),
                timesteps_input(
                    '"auto" uses those of the preset. Otherwise one timestep ("399" for SDXL-DMD2) or several in '
                    'decreasing order ("999, 749, 499, 249"), one for each step. Not a number of steps: "4" is one '
                    "step at timestep 4."
                ),
                preset_input(
                    'Which model this is. "auto" uses the recipe stored in a PG-SB checkpoint, else the last timestep '
                    "in one step. Choose by name for models from other loaders; the help page explains each preset."
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The sampled latent, for a VAE Decode.")],
        )

    @classmethod
    def validate_inputs(cls, timesteps: str | None = None) -> bool | str:
        """Check the text before anything runs; None means that another node provides it."""
        try:
            # The model's number of timesteps is checked when the node runs.
            parse_timesteps(AUTO if timesteps is None else timesteps, auto=(), num_train_timesteps=None)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        latent_image: io.Latent.Type,
        seed: int,
        timesteps: str,
        preset: str = AUTO,
    ) -> io.NodeOutput:
        return io.NodeOutput(one_step(model, positive, latent_image, seed=seed, timesteps=timesteps, preset=preset))
