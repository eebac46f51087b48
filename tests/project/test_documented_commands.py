"""Every command in README and the other pages is run, or at least its arguments are parsed.

Each is covered by exactly one of RULES; an uncovered command and an unused rule fail.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import parse_only
import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from documented import Command, commands, commands_in, pages
from live_pack import ROOT
from processes import TIMEOUT, start
from torch.distributed.run import get_args_parser

from training.config import load_recipe

COMMANDS = commands()
Words = list[str]  # of a command line, without "python"
Check = Callable[[list[Command]], list[Words]]  # gives the command lines for python to parse, all in one process


def run_by(*files: str) -> Check:
    """Another test takes exactly this command from the page and runs it."""

    def check(found: list[Command]) -> list[Words]:
        text = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
        for command in found:
            quote = "'" if '"' in command.text else '"'
            assert f"documented({quote}{command.text}{quote})" in text, f"{files} do not run `{command.text}`"
        return []

    return check


def make_has_the_target(found: list[Command]) -> list[Words]:
    """Run `make -n` and parse the commands it lists, since some take an hour."""
    python = []
    for text in {command.text for command in found}:
        done = subprocess.run(["make", "-n", *text.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}: {done.stderr}"
        for line in done.stdout.replace("\\\n", " ").splitlines():
            match = re.match(r'"[^"]*python"? (-m (?:training|experiments)\.[^>]*|benchmarks/[^>]*)', line)
            python += [shlex.split(match[1])] if match else []
    assert len(python) > 5
    return python


def problems(lines: list[Words], tmp_path: Path) -> list[str]:
    """The error of each command line, or ""; all are parsed in one other process."""
    log = tmp_path / "log"
    process = start(parse_only.run, log, lines, tmp_path / "problems.json")
    process.join(TIMEOUT)
    assert process.exitcode == 0, log.read_text(encoding="utf-8")
    return json.loads((tmp_path / "problems.json").read_text(encoding="utf-8"))


def arguments_parse(found: list[Command]) -> list[Words]:
    """The command's own parser accepts the arguments, and their recipe can be resolved."""
    lines = []
    for command in found:
        words = shlex.split(re.sub(r'("[^"]*")|[][]', r"\1", command.text))[1:]  # with the optional arguments
        named_only = command.inline and words[-1] == words[min(1, len(words) - 1)]
        lines.append([*words, "--help"] if named_only else words)
    return lines


def torchrun_parses(found: list[Command]) -> list[Words]:
    """torchrun's parser accepts its arguments, and the trainer's the rest. tests/training runs several processes."""
    lines = []
    for command in found:
        arguments = get_args_parser().parse_args(shlex.split(command.text)[1:])
        assert arguments.module and arguments.training_script == "training.pgsb", command
        lines.append(["-m", arguments.training_script, *arguments.training_script_args])
    return lines


def accelerate_parses(found: list[Command]) -> list[Words]:
    """accelerate's parser accepts its arguments, and the trainer's the rest; tests have no eight GPUs to run it."""
    lines = []
    for command in found:
        arguments = launch_command_parser().parse_args(shlex.split(command.text)[2:])
        _validate_launch_command(arguments)
        assert arguments.module and arguments.training_script == "training.pgsb", command
        lines.append(["-m", arguments.training_script, *arguments.training_script_args])
    return lines


def paths_exist(found: list[Command]) -> list[Words]:
    """The paths must exist; CI runs all of tests/."""
    for command in found:
        paths = [word for word in command.text.split() if word.startswith("tests/")]
        assert paths and all((ROOT / path).exists() for path in paths), command
    return []


def error_message_matches(found: list[Command]) -> list[Words]:
    """Tests do not download; the trainer's error for the missing package must contain the same command."""
    for command in found:
        assert command.text in (ROOT / "training" / "distill" / "optimizers.py").read_text(encoding="utf-8")
    return []


def changes_the_placeholder(found: list[Command]) -> list[Words]:
    """What stands before the pipe names every file that has the placeholder; the rest is perl's -pi."""
    for command in found:
        listed = subprocess.run(
            shlex.split(command.text.partition(" | ")[0]), cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert {"pyproject.toml", "web/docs/SnoopiNASAApply.md"} <= set(listed.stdout.split("\0"))
    return []


class Rule(NamedTuple):
    pattern: str
    check: Check


CLONE = r"git clone <this repository> snoopi"
RULES = {
    "make": Rule(r"make [a-z-]+", make_has_the_target),
    "install": Rule(rf"cd ComfyUI/custom_nodes|{CLONE}", run_by("tests/live/install/test_fresh_install.py")),
    "comfy-cli install": Rule(r"comfy node install .*", run_by("tests/live/install/test_manager.py")),
    "comfy-cli": Rule(
        r"python -m scripts\.setup\.comfy_cli .*",
        run_by("tests/live/install/conftest.py", "tests/live/install/test_archive.py"),
    ),
    "trainer": Rule(
        rf"{CLONE} && cd snoopi|pip install \"\.\[training\]\"|python -m training\.pgsb --dry-run"
        r"|(python -m training\.pgsb --resume|tensorboard --logdir|python -m training\.export) runs/mine.*",
        run_by("tests/project/test_first_run.py"),
    ),
    "python": Rule(
        r"python (-m experiments\.|-m training\.(?!pgsb --dry-run|pgsb --resume|export runs/mine)|benchmarks/).*",
        arguments_parse,
    ),
    "accelerate": Rule(r"accelerate launch .*", accelerate_parses),
    "torchrun": Rule(r"torchrun .*", torchrun_parses),
    "pytest": Rule(r"(python -m )?pytest( -rP)? tests/\S+( -rP)?", paths_exist),
    "models page": Rule(r"python -m scripts\.models_page", run_by("tests/nodes/families/test_audit.py")),
    "repository": Rule(r"git grep -lz .*", changes_the_placeholder),
    "optional": Rule(r"pip install bitsandbytes", error_message_matches),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.text}")
def test_exactly_one_rule_covers(command: Command) -> None:
    matching = [name for name, rule in RULES.items() if re.fullmatch(rule.pattern, command.text)]
    assert len(matching) == 1, f"{command.page}: `{command.text}` is covered by {matching or 'no rule'}"


@cache
def checked(name: str) -> list[Words]:
    found = [command for command in COMMANDS if re.fullmatch(RULES[name].pattern, command.text)]
    assert found, "no command needs this rule any more"
    return RULES[name].check(found)


@pytest.mark.parametrize("name", RULES)
def test_the_command_passes_its_rule(name: str) -> None:
    checked(name)


WRONG = {
    ("-m", "training.pgsb", "--recipie", "sd15"): "unrecognized arguments",
    ("-m", "training.pgsb", "--recipe", "sd51", "prompts.source=x"): "no such recipe",
    ("-m", "training.merge", "a"): "required",
    ("benchmarks/nasa_cost.py", "sd15", "--turns", "3"): "unrecognized arguments",
}


@pytest.mark.slow
def test_valid_arguments_are_accepted_and_wrong_ones_reported(tmp_path: Path) -> None:
    lines = [words for name in RULES for words in checked(name)]
    found = problems([*lines, *map(list, WRONG)], tmp_path)
    wrong = [f"python {shlex.join(line)}\n{one}" for line, one in zip(lines, found[: len(lines)], strict=True) if one]
    assert not wrong, "\n".join(wrong)
    for expected, one in zip(WRONG.values(), found[len(lines) :], strict=True):
        assert expected in one


def test_lists_are_quoted_for_every_shell() -> None:
    """In double quotes with none inside: Windows' cmd knows no others, and older PowerShells drop the inner ones."""
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    assert not re.findall(r"'[a-z]+\.[a-z_]+=.*|\b[a-z]+\.[a-z_]+=['\"].*", text)
    lists = re.findall(r'"([a-z]+\.[a-z_]+=\[[^"]*\])"', text)
    assert len(lists) >= 3
    for override in lists:
        recipe = load_recipe("sd15", ["prompts.source=x", override])
        section, name = override.partition("=")[0].split(".")
        assert len(getattr(getattr(recipe, section), name)) == 2, override


def test_commands_are_found_in_blocks_and_sentences() -> None:
    page = (
        "Say `make test`, `git  clone\nx` or `python`; `alpha 1` is none.\n\n    make demo    # comment\n"
        "    # accelerate in a comment\n    python -m a \\\n      b=1 \\\n      c=2\n\n    a -> b\n\n"
        "```bash\nHF_HUB_OFFLINE=1 curl -l\n```\n"
    )
    assert list(commands_in(page)) == [
        ("HF_HUB_OFFLINE=1 curl -l", False),
        ("make demo", False),
        ("python -m a b=1 c=2", False),
        ("make test", True),
        ("git clone x", True),
    ]
