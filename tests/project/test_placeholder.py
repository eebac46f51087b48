"""Publishing is refused while a file has the placeholder instead of a repository, until the printed command was run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_pack import ROOT

from scripts.setup.placeholder import MEND, PLACEHOLDER

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with this one's scripts, whose cache has a comfy-cli that only prints its arguments."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "scripts" / "setup" / "pinned_env.py").write_text(
        "from pathlib import Path\ndef provide(pins, size):\n    return Path(__file__).with_name('commands')\n"
    )
    command = folder / "scripts" / "setup" / "commands" / "comfy"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho ran: $@\n")
    command.chmod(0o755)
    for name in ("pyproject.toml", "a page.md"):
        (folder / name).write_text(f"see https://example.org/{PLACEHOLDER}#readme\n")
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_publish_is_refused_until_the_printed_command_was_run(checkout: Path) -> None:
    publish = ("scripts.setup.comfy_cli", "node", "publish")
    refused = run(checkout, *publish)
    assert refused.returncode == 1 and not refused.stdout
    assert f"links to the placeholder {PLACEHOLDER}:\na page.md\npyproject.toml\n" in refused.stderr
    assert refused.stderr.endswith(f"    {MEND}\n")
    for words in (["node", "validate"], ["node", "pack"], ["node", "publish", "--help"]):
        assert run(checkout, publish[0], *words).stdout.strip() == f"ran: --skip-prompt {' '.join(words)}"

    subprocess.run(MEND.replace("ACCOUNT/REPOSITORY", "someone/theirs"), shell=True, cwd=checkout, check=True)
    assert "https://example.org/someone/theirs#readme" in (checkout / "a page.md").read_text()
    done = run(checkout, *publish)
    assert done.stdout.strip() == "ran: --skip-prompt node publish", done.stderr


def test_without_git_nothing_is_published(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    refused = run(checkout, "scripts.setup.placeholder")
    assert refused.returncode == 1 and "git cannot search this checkout" in refused.stderr


def test_the_workflow_checks_before_it_publishes() -> None:
    steps = re.findall(r"(?:uses|run): (\S+.*)", (ROOT / ".github" / "workflows" / "publish.yml").read_text())
    check = next(number for number, step in enumerate(steps) if "scripts.setup.placeholder" in step)
    assert "publish-node-action" in steps[check + 1]
