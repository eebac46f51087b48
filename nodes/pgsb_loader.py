"""PG-SB Loader: opens what the trainer exports, and the models that it and others start from."""

from __future__ import annotations

from comfy_api.latest import io

from ..snoopi_core.host.loading.files import (
    NO_LORA,
    checkpoint_names,
    find_checkpoint,
    find_lora,
    fingerprint,
    lora_names,
)
from ..snoopi_core.host.loading.foreign import LATENTS
from ..snoopi_core.host.loading.loader import load_checkpoint


class PGSBLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SnoopiPGSBLoader",
            display_name="PG-SB Loader",
            category="SNOOPI",
            description=(
                "Opens a one-step model exported by the PG-SB trainer, of any size, together with its text encoder, "
                "its VAE and the recipe by which it is sampled. Also opens SD1.x, SD2.x, SDXL and PixArt models of "
                "others, and puts a student LoRA on a base model. Nothing in a file is ignored in silence."
            ),
            search_aliases=["PG-SB", "PGSB", "SwiftBrush", "load one-step model", "SNOOPI loader", "student LoRA"],
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=checkpoint_names(),
                    tooltip="First node of the chain. A .safetensors file in the folders checkpoints or "
                    "diffusion_models, or one that comes with this pack: made by the PG-SB trainer, or any SD1.x, "
                    "SD2.x, SDXL or PixArt model, as a single file or in diffusers' layout.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=lora_names(),
                    default=NO_LORA,
                    optional=True,
                    tooltip="A student's LoRA in the folder loras, put on the model at full strength; its recipe wins "
                    'over the base model\'s. "none" changes nothing.',
                ),
                io.Combo.Input(
                    "latents",
                    options=["auto", *LATENTS],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip='Whose VAE a PixArt file is for, when it does not say so itself: "SD1.x" for '
                    'PixArt-alpha, "SDXL" for PixArt-sigma. "auto", the neutral value, is right for all other files.',
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, with its recipe: for NASA Apply and One-Step Sampler."),
                io.Clip.Output(tooltip="Its text encoder; empty when the file holds none."),
                io.Vae.Output(tooltip="Its VAE; empty when the file holds none."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str, lora_name: str = NO_LORA, latents: str = "auto") -> str:
        """Changes when a file does, so that a newly exported student is read again."""
        return fingerprint(ckpt_name, lora_name)

    @classmethod
    def execute(cls, ckpt_name: str, lora_name: str = NO_LORA, latents: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(*load_checkpoint(find_checkpoint(ckpt_name), find_lora(lora_name), latents))
