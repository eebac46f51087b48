"""`python -m training.merge FULL LORA --out OUT`: merge two students into one by averaging their weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.trainer.merge import merge


def main(arguments: list[str] | None = None) -> int:
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
    args = parser.parse_args(arguments)
    try:
        path = merge(args.full, args.lora, args.out, base=args.base, weight=args.weight, title=args.title)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
