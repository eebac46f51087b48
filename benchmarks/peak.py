"""Reads the peak memory of this process."""

from __future__ import annotations

import re
from pathlib import Path


def own_peak() -> int:
    """Peak resident memory of this process in bytes (Linux). getrusage would include the parent process's peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
