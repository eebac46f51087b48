"""What a report rests on: images, settings, seeds, costs, versions."""

from __future__ import annotations

from training.evaluate.report.collect import Collected, parsed
from training.evaluate.report.tables import NONE, Table
from training.evaluate.sets.manifest import Manifest


def about_tables(found: Collected) -> list[Table]:
    """Costs, then settings and versions."""
    return [table for table in (_costs(found), _settings(found), _versions(found)) if table is not None]


def _costs(found: Collected) -> Table | None:
    rows = []
    per_image = {
        folder: cost["sampling_seconds"] / cost["sampled"] for folder, cost in found.costs.items() if cost["sampled"]
    }
    warm = {folder for folder, cost in found.costs.items() if cost["sampled"] < cost["images"]}
    for folder in sorted(per_image, key=lambda f: (found.sets[f].title, _order(found.sets[f].method))):
        manifest, cost = found.sets[folder], found.costs[folder]
        plain = next((f for f in per_image if found.sets[f].method == "none" and _same(found.sets[f], manifest)), None)
        times = f"{per_image[folder] / per_image[plain]:.2f}" if {plain, folder} <= warm else NONE
        rows.append(
            [
                *(manifest.title, manifest.method, cost["device"], str(cost["images"])),
                *(f"{1000 * per_image[folder]:.1f}", times, f"{cost['images'] / max(cost['seconds'], 1e-9):.1f}"),
            ]
        )
    head = ["model", "method", "device", "images", "ms in the network an image", "of no negative", "images/s in all"]
    note = (
        "Of the run that made them, the first process's share, without its first batch where there were more; the last "
        "column is with text, decoding and writing. A few images on a busy machine say little: benchmarks/RESULTS.md "
        "has the cost measured with care."
    )
    return Table(title="Cost", head=head, rows=rows, notes=[note]) if rows else None


def _order(method: str) -> tuple[bool, str, float]:
    return method != "none", *parsed(method)


def _settings(found: Collected) -> Table | None:
    rows = []
    for folder, manifest in found.sets.items():
        recipe, size = manifest.recipe, manifest.size
        rows.append(
            [
                *(str(folder), manifest.title, manifest.method, str(len(manifest.images)), str(manifest.seed)),
                NONE if recipe is None else f"{', '.join(map(str, recipe.timesteps))} (alpha_T {recipe.alpha_T:.4f})",
                NONE if size is None else f"{size[0]}x{size[1]}",
                manifest.precision,
                NONE if manifest.model is None else manifest.model.fingerprint[:12],
                manifest.protocol or NONE,
            ]
        )
    head = ["folder", "model", "method", "images", "seed", "timesteps", "size", "precision", "weights", "protocol"]
    return (
        Table(title="Images", head=head, rows=rows, notes=["Weights: the beginning of their SHA-256."])
        if rows
        else None
    )


def _versions(found: Collected) -> Table | None:
    names: dict[str, list[str]] = {}
    for versions in found.versions:
        for name, version in versions.items():
            names.setdefault(name, [])
            if version not in names[name]:
                names[name].append(version)
    rows = [[name, ", ".join(versions)] for name, versions in sorted(names.items())]
    return Table(title="Versions", head=["library", "version"], rows=rows) if rows else None


def _same(one: Manifest, other: Manifest) -> bool:
    return one.setup() == other.setup() and len(one.images) == len(other.images)
