"""The report's last tables: costs, settings of the images, and versions of libraries."""

from __future__ import annotations

from pathlib import Path

from training.evaluate.report.collect import Collected, parsed
from training.evaluate.report.tables import NONE, Table


def about_tables(found: Collected) -> list[Table]:
    """Costs, settings and versions."""
    return [_costs(found), _settings(found), _versions(found)]


def _costs(found: Collected) -> Table:
    rows = []
    per_image = {
        folder: cost["sampling_seconds"] / cost["sampled"] for folder, cost in found.costs.items() if cost["sampled"]
    }
    warm = {folder for folder, cost in found.costs.items() if cost["sampled"] < cost["images"]}
    groups = {folder: (found.sets[folder].setup(), len(found.sets[folder].images)) for folder in per_image}
    plain = {groups[folder]: folder for folder in reversed(per_image) if found.sets[folder].method == "none"}

    def order(folder: Path) -> tuple[str, bool, str, float]:
        method = found.sets[folder].method
        return found.sets[folder].title, method != "none", *parsed(method)

    for folder in sorted(per_image, key=order):
        manifest, cost, before = found.sets[folder], found.costs[folder], plain.get(groups[folder])
        times = f"{per_image[folder] / per_image[before]:.2f}" if {before, folder} <= warm else NONE
        own = f"{1000 * per_image[folder]:.1f}" if folder in warm else NONE
        all_of_it = f"{cost['images'] / max(cost['seconds'], 1e-9):.1f}"
        rows.append([manifest.title, manifest.method, cost["device"], str(cost["images"]), own, times, all_of_it])
    head = ["model", "method", "device", "images", "ms in the network an image", "of no negative", "images/s in all"]
    note = (
        "For the first process of the run that made the images, without its first batch, which includes starting up: a "
        "set of one batch has no time in the network. The last column includes that, text, decoding and writing. Few "
        "images on a busy machine give poor estimates: benchmarks/RESULTS.md has careful measurements."
    )
    return Table(title="Cost", head=head, rows=rows, notes=[note])


def _settings(found: Collected) -> Table:
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
    return Table(title="Images", head=head, rows=rows, notes=["Weights: the beginning of their SHA-256."])


def _versions(found: Collected) -> Table:
    pairs = dict.fromkeys(pair for versions in found.versions for pair in versions.items())
    rows = [[name, ", ".join(v for n, v in pairs if n == name)] for name in sorted({name for name, _ in pairs})]
    return Table(title="Versions", head=["library", "version"], rows=rows)
