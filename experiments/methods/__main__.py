"""`python -m experiments.methods`: compare the methods by which a negative prompt can act, with the same effort.

In one step, or with --steps 4 in four: then the negative acts in all of them.

Every method has eight settings (settings.py), is tuned on the same seeds by the same rule, and is reported on others.
The pairs are those of docs/data/negatives.json. Results are written after each setting; what was measured with the same
model and settings is not measured again. Then the tables and the chart of docs/METHODS.md are written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from experiments.json_file import as_json, read_json, read_results, write_json
from experiments.methods.measure import measure
from experiments.methods.page import draw, tables
from experiments.methods.results import Comparison
from experiments.methods.settings import REPORTING, SETTINGS, TUNING, Setting
from experiments.negatives.settings import FOUR_STEPS, Protocol
from experiments.removal import Generate
from experiments.sampling import few_steps
from experiments.tables import fill_page
from experiments.worlds import BUNDLED, WORLDS
from training.models.backbone import Backbone, fingerprint
from training.models.guidance.attention import GuidanceProcessor, attach
from training.models.guidance.nag import NagProcessor
from training.models.guidance.vsf import VsfProcessor
from training.models.loading import load_backbone

_WITH_OTHERS: dict[str, Callable[..., GuidanceProcessor]] = {"nag": NagProcessor, "vsf": VsfProcessor}


def generator(model: Backbone, setting: Setting | None, steps: int = 1) -> Generate:
    """Makes pictures with a setting, by the guidance code that the nodes use too; None: no negative."""
    make = partial(few_steps, model, FOUR_STEPS[:steps])
    if setting is None or setting.method not in _WITH_OTHERS:
        return make() if setting is None else make(setting.method, setting.strength)
    plain = make()

    def generate(prompts: list[str], seeds: list[int], negative: str | None = None) -> torch.Tensor:
        steered = nullcontext()
        if negative is not None:
            guidance = _WITH_OTHERS[setting.method](model.encode([negative]), setting.strength, **setting.others)
            steered = attach(model.network, guidance)
        with steered:
            return plain(prompts, seeds)

    return generate


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.methods", description=__doc__)
    parser.add_argument("model", nargs="?", help="default: the world's student")
    parser.add_argument("--world", choices=WORLDS, default=BUNDLED)
    parser.add_argument("--steps", type=int, choices=(1, len(FOUR_STEPS)), default=1)
    parser.add_argument("--json", type=Path, help="default: docs/data/methods.json, in four steps methods-4.json")
    parser.add_argument("--pairs", type=Path, default=Path("docs/data/negatives.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/METHODS.md"), help="its chart: images/ beside it")
    parser.add_argument("--tuning-images", type=int, default=TUNING.images, help="of each pair and setting")
    parser.add_argument("--images", type=int, default=REPORTING.images, help="of each pair and chosen setting")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    ending = "" if args.steps == 1 else f"-{args.steps}"
    results = args.json or Path(f"docs/data/methods{ending}.json")
    world = WORLDS[args.world]
    path = args.model or world.student
    model = load_backbone(path)
    protocols = {
        "tuning": Protocol(images=args.tuning_images, seeds=TUNING.seeds),
        "reporting": Protocol(images=args.images, seeds=REPORTING.seeds),
    }
    about = {
        "model": path,
        "fingerprint": fingerprint(model.network),
        "reader": world.reader,
        "protocols": as_json({part: asdict(each) for part, each in protocols.items()}),
        "settings": {method: [str(each) for each in several] for method, several in SETTINGS.items()},
    }
    if args.steps > 1:
        about["timesteps"] = list(FOUR_STEPS)
    found = read_results(results, about)
    if not found:
        source = read_json(args.pairs)
        if any(source.get(name) != about[name] for name in ("fingerprint", "reader")):
            print(f"error: {args.pairs} is not of {path}; run `python -m experiments.negatives`", file=sys.stderr)
            return 2
        found = {**about, "pairs": source["pairs"], "tuning": {}, "reporting": {}}
    by_name = {str(each): each for several in SETTINGS.values() for each in several}
    measure(
        world,
        found,
        protocols,
        lambda name: generator(model, by_name.get(name), args.steps),
        lambda: write_json(results, found),
    )
    comparison = Comparison(found)
    fill_page(args.page, {name + ending: content for name, content in tables(comparison).items()})
    draw(comparison, args.page.parent / "images" / f"methods-kept{ending}.png")
    print(f"wrote {args.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
