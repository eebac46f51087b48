"""PG-SB Loader: opens models exported by the trainer, and SD1.x, SD2.x, SDXL and PixArt models of others."""

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
                "Loads a one-step model: the small one that comes with this pack, or one made by the PG-SB trainer, "
                "with its text encoder, its VAE and the settings to sample it with. Also opens other SD1.x, SD2.x, "
                "SDXL and PixArt models, and applies a student LoRA to a base model. Nothing in a file is silently "
                "ignored."
            ),
            search_aliases=[
                "load one-step model",
                "load sd turbo",
                "load checkpoint",
                "student LoRA",
                "PG-SB",
                "PGSB",
                "SwiftBrush",
                "SNOOPI loader",
            ],
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=checkpoint_names(),
                    tooltip="First node of the chain. A .safetensors file in the folders checkpoints or "
                    "diffusion_models, or one included in this pack: made by the PG-SB trainer, or any SD1.x, "
                    "SD2.x, SDXL or PixArt model, as a single file or in diffusers' layout.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=lora_names(),
                    default=NO_LORA,
                    optional=True,
                    tooltip="A student's LoRA in the folder loras, applied to the model at full strength; its recipe "
                    'replaces the base model\'s. "none" changes nothing.',
                ),
                io.Combo.Input(
                    "latents",
                    options=["auto", *LATENTS],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip='Which VAE a PixArt file needs, if the file does not say: "SD1.x" for PixArt-alpha, "SDXL" '
                    'for PixArt-sigma. "auto", the neutral value, is right for all other files.',
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, with its recipe: for NASA Apply and One-Step Sampler."),
                io.Clip.Output(tooltip="Its text encoder; empty if the file contains none."),
                io.Vae.Output(tooltip="Its VAE; empty if the file contains none."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str, lora_name: str = NO_LORA, latents: str = "auto") -> str:
        """Changes when a file changes, so that a newly exported student is loaded again."""
        return fingerprint(ckpt_name, lora_name)

    @classmethod
    def execute(cls, ckpt_name: str, lora_name: str = NO_LORA, latents: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(*load_checkpoint(find_checkpoint(ckpt_name), find_lora(lora_name), latents))
