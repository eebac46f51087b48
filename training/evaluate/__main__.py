"""Entry point of `python -m training.evaluate`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from training.config import find_file, looks_like_hub_id
from training.console import long_step, report, set_up_console
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
    set_up_console()
    args = parser().parse_args(arguments)
    try:
        check_paths(args)
        apply_protocol(args)
        return _run(args)
    except (OSError, ValueError) as error:
        from training.config.errors import FailedHere

        # Most errors occur in every process: print them once per machine, unless only this process has met one.
        if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, FailedHere):
            return report(error)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {_AFTER_CTRL_C.get(args.command, 'nothing was written')}", file=sys.stderr)
        return 130


def check_paths(args: argparse.Namespace) -> None:
    """Check that the model or the folders of a command are there.

    Raises:
        FileNotFoundError: one is not.
    """
    model = getattr(args, "model", "")
    if model and not find_file(model).exists() and not looks_like_hub_id(model):
        raise FileNotFoundError(
            f"no model at {model!r}: looked for {find_file(model).absolute()}; expected a student's .safetensors file, "
            "a run's folder, a diffusers folder, or a hub id such as owner/name"
        )


def _run(args: argparse.Namespace) -> int:
    with long_step("starting torch and other libraries", at_once=False):
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
