"""Refuse to publish while links still name the placeholder instead of a repository.

`python -m scripts.setup.placeholder` ends with an error then; comfy_cli.py and .github/workflows/publish.yml call it.

Standard library only.
"""

from __future__ import annotations

import subprocess
import sys

from scripts import ROOT

PLACEHOLDER = "/".join(("your-account", "snoopi"))  # in two parts: MEND must not change this file, too
MEND = f"git grep -lz {PLACEHOLDER} | xargs -0 perl -pi -e 's|{PLACEHOLDER}|ACCOUNT/REPOSITORY|g'"


def check() -> None:
    """Exit with the names of the files that have the placeholder, and what mends them all."""
    found = subprocess.run(["git", "grep", "-l", PLACEHOLDER], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode not in (0, 1):  # 1: no file has it
        sys.exit(f"Not published, since git cannot search this checkout: {found.stderr.strip()}")
    if found.stdout:
        sys.exit(
            f"Not published, since these files have links to the placeholder {PLACEHOLDER}:\n{found.stdout}"
            f"Put your repository in its place (see CONTRIBUTING.md, under Working on it), then commit:\n\n    {MEND}"
        )


if __name__ == "__main__":
    check()
