"""PG-SB Loader: opens what the trainer exports."""

from __future__ import annotations

from comfy_api.latest import io

from ..snoopi_core.host.files import checkpoint_names, find_checkpoint, fingerprint
from ..snoopi_core.host.loader import load_checkpoint


class PGSBLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SnoopiPGSBLoader",
            display_name="PG-SB Loader",
            category="SNOOPI",
            description=(
                "Opens a one-step model exported by the PG-SB trainer, of any size, together with its text encoder, "
                "its VAE and the recipe by which it is sampled."
            ),
            search_aliases=["PG-SB", "PGSB", "SwiftBrush", "load one-step model", "SNOOPI loader"],
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=checkpoint_names(),
                    tooltip="A .safetensors file made by the PG-SB trainer, in the folders checkpoints or "
                    "diffusion_models, or one that comes with this pack. First node of the chain; other checkpoints "
                    "are opened by Load Checkpoint.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, with its recipe: for NASA Apply and One-Step Sampler."),
                io.Clip.Output(tooltip="Its text encoder; empty when the file holds none."),
                io.Vae.Output(tooltip="Its VAE; empty when the file holds none."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str) -> str:
        """Changes when the file does, so that a newly exported student is read again."""
        return fingerprint(ckpt_name)

    @classmethod
    def execute(cls, ckpt_name: str) -> io.NodeOutput:
        return io.NodeOutput(*load_checkpoint(find_checkpoint(ckpt_name)))
