"""NASA's strength: what the paper uses, by kind of model (SNOOPI, arXiv 2412.02687, Table 8 and Figure 5)."""

from __future__ import annotations

from .presets import find_preset

PRESETS_OF_KIND = {
    "SD1.5": ("PG-SB SD1.5", "DMD2 SD1.5", "InstaFlow-0.9B"),
    "SD2.1": ("PG-SB SD2.1", "SwiftBrush v2"),
    "PixArt": ("YOSO-PixArt", "PixArt-DMD", "PG-SB PixArt, 999"),
}
_SWEPT = {"SDXL": "0.0 to 1.0 by prompt (SDXL-DMD2)"}


def paper_alphas(kind: str | None) -> str | None:
    """Such as "0.04 (PG-SB SD1.5, DMD2 SD1.5), 0.19 (InstaFlow-0.9B)"; None where the paper has none."""
    if kind not in PRESETS_OF_KIND:
        return _SWEPT.get(kind)
    names: dict[float, list[str]] = {}
    for name in PRESETS_OF_KIND[kind]:
        names.setdefault(find_preset(name).nasa_alpha, []).append(name)
    return ", ".join(f"{alpha:.2f} ({', '.join(several)})" for alpha, several in names.items())
