"""Inputs shared by the nodes that sample."""

from __future__ import annotations

from comfy_api.latest import io

from ..snoopi_core.presets import AUTO, PRESETS


def seed_input(tooltip: str, *, next_seed: bool = False) -> io.Int.Input:
    """A seed input; `next_seed`: change it after each run. Otherwise the node is not run again in a larger graph."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True if next_seed else io.ControlAfterGenerate.fixed,
        tooltip=tooltip,
    )


def timesteps_input(tooltip: str, *, optional: bool = False) -> io.String.Input:
    return io.String.Input("timesteps", default=AUTO, optional=optional, tooltip=tooltip)


def preset_input(tooltip: str) -> io.Combo.Input:
    """A preset input; optional, because API prompts saved before presets existed lack it."""
    options = [AUTO, *(preset.name for preset in PRESETS)]
    return io.Combo.Input("preset", options=options, default=AUTO, optional=True, tooltip=tooltip)
