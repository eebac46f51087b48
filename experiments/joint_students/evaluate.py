"""`python -m experiments.joint_students.evaluate NETWORK`: what negative prompts do to a student, by each formula.

Through the host's sampler and NASA Apply's attachment. Every method has the same number of settings (settings.py), is
tuned on the same seeds by the same rule and is reported on others. Results are written after each setting; those that
exist are not measured again. With --page, the tables and pictures of what has been measured are written.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from experiments.avatars.world import AVATARS
from experiments.joint_students.host import start_host
from experiments.joint_students.page import fill, write_pictures
from experiments.joint_students.pairs import load_turn
from experiments.joint_students.settings import REPORTING, SETTINGS, TUNING
from experiments.joint_students.train import read_recipe
from experiments.joint_students.turn import digest
from experiments.joint_students.world import LATENT, TEXT, load
from experiments.json_file import as_json, read_results, write_json
from experiments.methods.measure import measure
from experiments.methods.results import PLAIN, Comparison
from experiments.negatives.measure import all_pairs
from experiments.negatives.settings import Protocol
from training.models.backbone import fingerprint


def needed(found: Comparison) -> list[str]:
    """The settings to report: what was chosen, also among the padded and among the trimmed ones alone."""
    endings = ("", "padded", "trimmed")
    return [PLAIN, *dict.fromkeys(found.chosen(m, ending=end) for m in found.found["settings"] for end in endings)]


def evaluate(folder: Path, network: str, steps: int, path: Path, protocols: dict[str, Protocol]) -> None:
    """Measure what is missing and write it to `path`. Ends the program if that file is of something else."""
    start_host()
    from experiments.joint_students.networks import as_patcher, new_model
    from experiments.joint_students.sampling import HostStudent

    teacher = load("student")
    recipe = read_recipe(folder, network)
    model = new_model(network, channels=LATENT[0], text=TEXT, width=recipe.width, depth=recipe.depth)
    rotation = load_turn(folder, recipe.source)
    if digest(rotation) != recipe.rotation:
        sys.exit(f"{folder} has another rotation of the noise than {network} was trained with; train it anew")
    state = torch.load(folder / f"{network}.pt", map_location="cpu", weights_only=True)
    model.diffusion_model.load_state_dict(state["networks"]["average"])
    plain = HostStudent(patcher=as_patcher(model), world=teacher, rotation=rotation, steps=steps)
    by_name = {str(each): each for several in SETTINGS.values() for each in several}
    about: dict[str, Any] = {
        "network": network,
        "fingerprint": fingerprint(model.diffusion_model),
        "iterations": state["iteration"],
        "steps": steps,
        "protocols": as_json({part: asdict(each) for part, each in protocols.items()}),
        "settings": {method: [str(each) for each in several] for method, several in SETTINGS.items()},
    }
    found = read_results(path, about)
    if not found:
        tuning = protocols["tuning"]
        pairs = all_pairs(AVATARS, plain, tuning)
        found = {**about, "pairs": [as_json(asdict(pair)) for pair in pairs], "tuning": {}, "reporting": {}}
    measure(
        AVATARS,
        found,
        protocols,
        lambda name: replace(plain, setting=by_name.get(name)),
        lambda: write_json(path, found),
        needed,
    )
    write_pictures(Comparison(found), lambda name: replace(plain, setting=by_name.get(name)), path.with_suffix(".png"))


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.joint_students.evaluate", description=__doc__)
    parser.add_argument("network", choices=("two-stream", "single-stream"))
    parser.add_argument("--steps", type=int, choices=(1, 4), default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/joint_students"), help="folder of the training")
    parser.add_argument("--data", type=Path, default=Path("docs/data"), help="folder of the results")
    parser.add_argument("--page", type=Path, help="a page to fill, docs/JOINT_ATTENTION.md")
    parser.add_argument("--tuning-images", type=int, default=TUNING.images, help="of each pair and setting")
    parser.add_argument("--images", type=int, default=REPORTING.images, help="of each pair and chosen setting")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    protocols = {
        "tuning": replace(TUNING, images=args.tuning_images),
        "reporting": replace(REPORTING, images=args.images),
    }
    path = args.data / f"joint-{args.network}-{args.steps}.json"
    evaluate(args.out, args.network, args.steps, path, protocols)
    if args.page:
        fill(args.page, args.data)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
