"""`python -m training.merge FULL LORA --out OUT`: merge two students into one by averaging their weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.config import find_file
from training.console import long_step, run_command, set_up_console


def main(arguments: list[str] | None = None) -> int:
    set_up_console()
    args = _parser().parse_args(arguments)
    return run_command(lambda: _merge(args), stopped="nothing was written")


def _merge(args: argparse.Namespace) -> int:
    if not 0 <= args.weight <= 1:
        raise ValueError(f"--weight is {args.weight:g}, expected a number from 0 to 1")
    for kind, path in (("the full student", args.full), ("the LoRA student", args.lora)):
        if not find_file(str(path)).is_file():
            raise FileNotFoundError(
                f"{kind}: no file at {str(path)!r}; expected an export such as runs/mine/export/student.safetensors"
            )
    with long_step("starting torch and other libraries"):  # they take ten seconds, which wrong arguments need not wait
        from training.trainer.merge import merge
    with long_step("merging"):
        path = merge(args.full, args.lora, args.out, base=args.base, weight=args.weight, title=args.title)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.merge", description=__doc__)
    parser.add_argument("full", type=Path, help="the export of a student that was trained in full")
    parser.add_argument("lora", type=Path, help="the export of a student that was trained as a LoRA")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--weight", type=float, default=0.5, help="weight of the full student, from 0 to 1 (default: 0.5)"
    )
    parser.add_argument(
        "--base", default="", help="the model that the LoRA was trained on; default: the one named in the LoRA"
    )
    parser.add_argument("--title", default="", help="of the new file; default: both titles")
    return parser


if __name__ == "__main__":
    sys.exit(main())
