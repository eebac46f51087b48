"""`python -m training.evaluate`: the paper's measurements, for any student."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module

from training.evaluate.arguments import parser
from training.evaluate.protocol import settle


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when it is done; 2 when it could not be, which was told."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settle(args)
        # torch and what builds on it take ten seconds to import: help and wrong words come before
        return _run(args)
    except (OSError, ValueError) as error:
        # every process finds the same fault: one of each machine tells
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    from training.processes import FailedElsewhere

    try:
        return getattr(import_module(f"training.evaluate.{args.command}"), args.command)(args)
    except FailedElsewhere:
        return 2


if __name__ == "__main__":
    sys.exit(main())
