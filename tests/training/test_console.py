"""What commands do with the screen: no character ends them, no foreign noise, long steps say so, Ctrl-C is quiet."""

import io
import logging
import os
import subprocess
import sys
import threading

import pytest

from training import console
from training.console import long_step, set_up_console
from training.export import main as export
from training.merge import main as merge
from training.pgsb import main
from training.prompts.encode import main as encode

HEAVY = ("torch", "diffusers", "transformers", "datasets", "accelerate", "open_clip", "peft")
MISTAKES = {  # by command: arguments, and a part of the message
    "pgsb": [
        (["--recipe", "sd16", "prompts.source=x"], "did you mean sd15?"),
        (["--recipe", "sd15", "lop.iterations=3", "prompts.source=shapes"], "unknown key 'lop'; did you mean loop?"),
        (["--recipe", "sd15", "prompts.source=nowhere.txt"], "prompts.source: nothing at 'nowhere.txt'"),
        (["--recipe", "sd15", "prompts.source=shapes", "clip.model=ViT-B32"], "similar: ViT-B-32"),
        (["teacher.path=nowhere.safetensors", "--dry-run"], "teacher.path: nothing at"),
        (["--resume", "nowhere"], "there is no run"),
    ],
    "export": [(["nowhere", "--out", "x.safetensors"], "is no run folder")],
    "merge": [(["a.safetensors", "b.safetensors", "--out", "x.safetensors"], "no file at 'a.safetensors'")],
    "prompts.encode": [(["--recipe", "pixrat"], "did you mean pixart?")],
    "evaluate.__main__": [(["generate", "nowhere.safetensors", "--prompts", "shapes", "--out", "x"], "no model at")],
}
SCRIPT = """
import contextlib, importlib, io, sys
for name, cases in {mistakes!r}.items():
    main = importlib.import_module("training." + name).main
    for words, expected in cases:
        with contextlib.redirect_stderr(io.StringIO()) as screen:
            code = main(words)
        assert code == 2 and expected in screen.getvalue(), (name, words, code, screen.getvalue())
        loaded = [heavy for heavy in {heavy!r} if heavy in sys.modules]
        assert not loaded, (name, words, loaded)
"""


def test_plain_mistakes_are_reported_before_anything_heavy_is_imported(pack_root, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(pack_root)}
    script = SCRIPT.format(mistakes=MISTAKES, heavy=HEAVY)
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def windows_console(monkeypatch):
    """Make standard output and error those of a Western Windows console; returns a function that reads them.

    Not a fixture: pytest sets its own before the test.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])

    def shown():
        for stream in streams:
            stream.flush()
        return "".join(stream.buffer.getvalue().decode("cp1252") for stream in streams)

    return shown


def test_a_prompt_that_the_console_cannot_show_ends_nothing(tiny_run, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat 😀 猫\n", encoding="utf-8")
    shown = windows_console(monkeypatch)
    assert main(tiny_run(tmp_path / "run", f"prompts.source={prompts}", "output.title=猫", "--dry-run")) == 0
    assert r"a cat \U0001f600 \u732b" in shown()
    assert main(["--recipe", "猫"]) == 2
    assert r"recipe '\u732b': no such recipe" in shown()


def test_only_the_known_noise_is_silenced(capfd):
    """In a fresh process: a test run has its own logging."""
    script = (
        "import logging; from training.console import set_up_console; set_up_console()\n"
        "theirs = logging.getLogger('bitsandbytes.backends.cpu.ops')\n"
        "theirs.warning('Failed to load CPU gemm_4bit_forward from kernels-community: %s', 1)\n"
        "theirs.warning('another warning')\n"
        "logging.info('Parsing model identifier')\n"
        "logging.warning('No pretrained weights loaded for model %r', 'x')\n"
        "logging.warning('a warning of open_clip')\n"
        "logging.getLogger('training.anything').info('ours')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert capfd.readouterr().err.splitlines() == ["another warning", "a warning of open_clip", "ours"]


def test_a_long_step_says_so_again_and_again(monkeypatch, caplog):
    monkeypatch.setattr(console, "EVERY", 0.001)
    caplog.set_level(logging.INFO)
    three, messages = threading.Event(), []

    class Listener(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())
            if len(messages) == 3:
                three.set()

    listener = Listener()
    console.log.addHandler(listener)
    set_up_console()
    try:
        with long_step("hashing"):
            assert three.wait(600)
    finally:
        console.log.removeHandler(listener)
    assert messages[0] == "hashing ..." and messages[1].startswith("hashing ... (0 s)")
    count = len(messages)
    monkeypatch.setattr(console, "EVERY", 600)
    with long_step("short", at_once=False):
        pass
    assert len(messages) == count, "a short step says nothing"


COMMANDS = [  # and the first function that each calls
    (main, ["--dry-run"], "training.pgsb.load_recipe"),
    (export, ["models", "--out", "x.safetensors"], "training.export.find_file"),
    (merge, ["a", "b", "--out", "x.safetensors"], "training.merge.find_file"),
    (encode, ["--recipe", "shapes"], "training.prompts.encode.load_recipe"),
]


@pytest.mark.parametrize(("command", "words", "inside"), COMMANDS)
def test_output_that_nobody_reads_any_more_is_no_error(monkeypatch, capsys, command, words, inside):
    def speaks(*args, **settings):
        print("a line", flush=True)

    monkeypatch.setattr(inside, speaks)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert command(words) == 141
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("command", "words", "inside"), COMMANDS)
def test_ctrl_c_while_loading_is_one_line(monkeypatch, capsys, command, words, inside):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(inside, interrupted)
    if command is export:
        monkeypatch.setattr("training.export._export", interrupted)
    assert command(words) == 130
    message = capsys.readouterr().err
    assert message.startswith("stopped; ") and message.count("\n") == 1
