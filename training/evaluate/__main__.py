"""`python -m training.evaluate`: the paper's measurements, for any student."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module

from training.evaluate.cli import parser
from training.evaluate.paper_protocol import settle

_AFTERWARDS = {
    "generate": "the same command goes on where it was",
    "score": "what was measured of whole sets is kept",
}


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 when it is done; 2 when it could not be, which was told; 130 when Ctrl-C stopped it."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settle(args)
        # torch and what builds on it take ten seconds to import: help and wrong words come before
        return _run(args)
    except (OSError, ValueError) as error:
        # every process finds most faults: one of each machine tells
        if os.environ.get("LOCAL_RANK", "0") == "0" or getattr(error, "here", False):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {_AFTERWARDS.get(args.command, 'nothing was written')}", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    from training.config.errors import FailedElsewhere

    try:
        return getattr(import_module(f"training.evaluate.{args.command}"), args.command)(args)
    except FailedElsewhere:
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        raise ValueError(f"the GPU's memory is too small for --batch {args.batch}; give a smaller one") from error


if __name__ == "__main__":
    sys.exit(main())
