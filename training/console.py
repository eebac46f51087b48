"""What all commands do with the screen: they never fail on a character, hide known noise, and name long steps."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

log = logging.getLogger(__name__)
EVERY = 4.0  # seconds between two lines of a long step


def _without(beginning: str) -> Callable[[logging.LogRecord], bool]:
    """A filter that leaves out messages that begin with this."""
    return lambda record: not str(record.msg).startswith(beginning)


# Messages of other libraries that concern nothing these commands do, by logger.
_NOISE = {
    "bitsandbytes.backends.cpu.ops": _without("Failed to load CPU gemm_4bit_forward"),
    "root": _without("No pretrained weights loaded for model"),  # of open_clip: a file's are loaded later, or none
}


def set_up_console() -> None:
    """Call when a command starts. Characters that the console lacks are written as escapes, such as \\U0001f600.

    Shows the INFO messages of training, and the warnings of everything else (open_clip logs INFO for each model). In a
    distributed run only the first process of a machine shows them.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # replaced by a stream without settings, or closed
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    logging.getLogger("training").setLevel(logging.INFO if first else logging.ERROR)
    for name, without in _NOISE.items():
        logging.getLogger(name).addFilter(without)


def report(error: Exception) -> int:
    """Print an error, but not that the program which reads the output, such as `head`, has ended.

    Returns:
        The exit code: 2, or 141 for an end of output, which is 128 + SIGPIPE.
    """
    if isinstance(error, BrokenPipeError):
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
            return 141
    print(f"error: {error}", file=sys.stderr)
    return 2


def run_command(work: Callable[[], int], *, stopped: str) -> int:
    """Run a command's work, and print what the user needs to know if it fails.

    Args:
        stopped: what Ctrl-C leaves behind.

    Returns:
        The exit code: that of the work, 2 after an error, or 130 after Ctrl-C; see also `report`.
    """
    try:
        return work()
    except (OSError, ValueError) as error:
        return report(error)
    except KeyboardInterrupt:
        print(f"stopped; {stopped}", file=sys.stderr)
        return 130


@contextmanager
def long_step(what: str, *, at_once: bool = True) -> Iterator[None]:
    """Log what the block does, and again every few seconds until it ends.

    Args:
        at_once: log it at the beginning too; otherwise a short step says nothing.
    """
    done, start = threading.Event(), time.monotonic()

    def remind() -> None:
        while not done.wait(EVERY):
            log.info("%s ... (%d s)", what, time.monotonic() - start)

    if at_once:
        log.info("%s ...", what)
    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
