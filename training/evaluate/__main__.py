"""Entry point of `python -m training.evaluate`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module

from training.evaluate.cli import parser
from training.evaluate.paper_protocol import apply_protocol

# Each module is imported only when its command runs: torch takes seconds, which --help and usage errors should not.
_MODULES = {
    "generate": "training.evaluate.generate.command",
    "score": "training.evaluate.metrics.command",
    "removal": "training.evaluate.judges.command",
    "report": "training.evaluate.report.command",
    "alpha": "training.evaluate.alpha",
}
_AFTER_CTRL_C = {
    "generate": "run the same command again to continue",
    "score": "the scores of finished folders are saved",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 on success, 2 after an error (which is printed), 130 after Ctrl-C.
    """
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        apply_protocol(args)
        return _run(args)
    except (OSError, ValueError) as error:
        from training.config.errors import FailedHere

        # Most errors occur in every process: print them once per machine, unless only this process has met one.
        if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, FailedHere):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {_AFTER_CTRL_C.get(args.command, 'nothing was written')}", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    import torch

    from training.config.errors import FailedElsewhere

    command = getattr(import_module(_MODULES[args.command]), args.command)
    try:
        return command(args)
    except FailedElsewhere:
        return 2
    except torch.OutOfMemoryError as error:
        raise ValueError(f"not enough GPU memory for --batch {args.batch}; give a smaller one") from error


if __name__ == "__main__":
    sys.exit(main())
