"""The commands in the documentation: in code blocks, and between backticks in sentences."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from live_pack import ROOT

PROGRAMS = {
    *("accelerate", "cd", "comfy", "git", "make", "pip", "pre-commit", "pytest", "python", "tensorboard"),
    # Not in the pages so far, but must be recognised if they are added.
    *("apt-get", "bash", "brew", "conda", "curl", "docker", "huggingface-cli", "npm", "python3", "sudo", "torchrun"),
    *("uv", "wget"),
}
_FENCE = re.compile(r"^```.*?$(.*?)^```", re.M | re.S)
_INDENTED = re.compile(r"(?:^ {4}.*\S.*\n?)+", re.M)
_INLINE = re.compile(r"`([^`]+)`")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S+")


class Command(NamedTuple):
    page: str
    text: str
    inline: bool


def pages() -> list[Path]:
    """Every page with instructions. CHANGELOG.md describes the past."""
    patterns = (
        "README.md",
        "CONTRIBUTING.md",
        "docs/*.md",
        "benchmarks/*.md",
        "experiments/*.md",
        "training/*.md",
        "web/docs/**/*.md",
    )
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def commands() -> list[Command]:
    """Each command of each page once, without comments and with continuation lines joined."""
    found = {
        Command(page.relative_to(ROOT).as_posix(), text, inline): None
        for page in pages()
        for text, inline in commands_in(page.read_text(encoding="utf-8"))
    }
    return list(found)


def documented(text: str) -> str:
    """Return `text`; fails if no page has it as a command. For tests that run documented commands."""
    assert any(command.text == text for command in commands()), f"no page has the command {text!r} any more"
    return text


def run_python(command: str, folder: Path) -> str:
    """Run `python ...` of a page in a folder with this Python; returns what it printed."""
    words = [sys.executable, *command.split()[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def commands_in(markdown: str) -> Iterator[tuple[str, bool]]:
    """The commands of one page, and whether each is inside a sentence."""
    blocks = [match[1] for match in _FENCE.finditer(markdown)]
    prose = _FENCE.sub("", markdown)
    blocks += [match[0] for match in _INDENTED.finditer(prose)]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            if is_command(text := _without_comment(line)):
                yield text, False
    for match in _INLINE.finditer(_INDENTED.sub("", prose)):
        text = " ".join(match[1].split())
        if " " in text and is_command(text):
            yield text, True


def is_command(text: str) -> bool:
    words = [word for word in text.split() if not _ASSIGNMENT.fullmatch(word)]
    return bool(words) and words[0] in PROGRAMS


def _without_comment(line: str) -> str:
    return " ".join(re.sub(r"(^|\s)#.*", "", line).split())
