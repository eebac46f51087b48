"""A virtual environment with only the requirements of ComfyUI, without the trainer's packages.

Built by linking the files of packages that are already installed: the host's requirements and their dependencies. That
takes seconds; installing them takes minutes and 6 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make_clean_env(folder: Path, requirements: Path) -> Path:
    """Create an environment in ``folder`` with pip, ``requirements`` and their dependencies; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    for installed in closure([*requirement_lines(requirements), Requirement("pip")]):
        _link(installed, site_packages(python))
    return python


def add_packages(python: Path, other: Path) -> None:
    """Add to the environment of ``python`` the packages that only the environment of ``other`` has."""
    site = site_packages(python)
    there = {canonicalize_name(one.name) for one in distributions(path=[str(site)])}
    for installed in distributions(path=[str(site_packages(other))]):
        if canonicalize_name(installed.name) not in there:
            _link(installed, site)


@cache
def site_packages(python: Path) -> Path:
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout.strip())


def requirement_lines(file: Path) -> list[Requirement]:
    """The requirements in a requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def closure(wanted: Iterable[Requirement]) -> list[Distribution]:
    """The installed distributions named by ``wanted``, and their dependencies.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed here.
    """
    todo, found = list(wanted), {}
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in found or not _applies(requirement, ()):
            continue
        found[key] = distribution(requirement.name)
        needed = [Requirement(line) for line in found[key].requires or ()]
        todo += [_without_marker(one) for one in needed if _applies(one, requirement.extras)]
    return list({name: one for (name, _), one in found.items()}.values())


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _without_marker(requirement: Requirement) -> Requirement:
    """Without its marker, which was already evaluated with the parent's extras."""
    requirement.marker = None
    return requirement


def _link(installed: Distribution, site: Path) -> None:
    for file in installed.files or ():
        source, target = Path(str(installed.locate_file(file))), Path(os.path.normpath(site / file))
        if source.is_file() and not target.exists() and not _is_script(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_file(source, target)


def _is_script(file: Path) -> bool:
    """Scripts in bin/ are skipped: they name the other environment's Python."""
    with file.open("rb") as opened:
        return file.parent.name == "bin" and opened.read(2) == b"#!"


def _link_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk, a disk without hard links, or another user's file
        target.symlink_to(source)
