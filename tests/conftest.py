"""Bring up a real ComfyUI in this process, and the pack inside it as ``snoopi_pack``.

``import comfy.sd``, ``import nodes`` and the like are the host's modules; the pack's own are ``snoopi_pack.nodes``,
``snoopi_pack.snoopi_core`` (as the host loads them) and, as installed libraries, ``snoopi_core`` and ``training``.
SNOOPI_HOST_VERSION chooses a pinned host, COMFYUI_PATH one's own (see scripts/setup/host.py).

All of it happens while this file is imported, so that conftest files further down can import the host too.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

gc.disable()  # until all is imported: nothing of it is garbage
# Before torch is imported. One thread: the models here are tiny, so more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads a model
# Tests run on the CPU, where they are reproducible; SNOOPI_TEST_GPU=1 puts the host on CUDA.
ON_GPU = os.environ.get("SNOOPI_TEST_GPU") == "1"
if not ON_GPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # also where a test names no device

ROOT = Path(__file__).resolve().parent.parent
# What tests and the host import beside the trainer's libraries of tests/support/preloaded.py.
LIBRARIES = (
    "av",
    "comfy_kitchen",
    "einops",
    "hypothesis.strategies",
    "hypothesis.internal.conjecture.engine",
    "kornia",
    "open_clip",
    "playwright.sync_api",
    "tensorboard.backend.event_processing.event_accumulator",
    "torch_fidelity",
    "torchaudio",
    "torchsde",
    "websocket",
    "xdist.remote",
)
PACK = "snoopi_pack"


class _PackFinder:
    """Finds the pack's root package under the name ``snoopi_pack``, on its first import and not before."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != PACK:
            return None
        init = ROOT / "__init__.py"
        return importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(ROOT)])


def _load_host_finder() -> Any:
    spec = importlib.util.spec_from_file_location("snoopi_scripts_host", ROOT / "scripts" / "setup" / "host.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def _find_host() -> Path:
    try:
        return _host_finder.find_host()
    except _host_finder.HostError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


def _import_host(host: Path, base: Path) -> None:
    """Parse the host's command line once, as its main.py would, with every folder under ``base``."""
    import comfy.options

    for folder in ("custom_nodes", "models", "input", "output", "temp", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    comfy.options.enable_args_parsing()
    own_arguments = sys.argv
    database = f"sqlite:///{base / 'comfyui.db'}"
    sys.argv = ["main.py", "--base-directory", str(base), "--database-url", database]
    sys.argv += [] if ON_GPU else ["--cpu"]
    try:
        import comfy.cli_args
    finally:
        sys.argv = own_arguments


_host_finder = _load_host_finder()
HOST = _find_host()
BASE = Path(tempfile.mkdtemp(prefix="snoopi-tests-"))
atexit.register(shutil.rmtree, BASE, ignore_errors=True)
# Ours go to the end and the host to the front: `nodes` must stay the host's nodes.py.
sys.path[:] = [str(HOST), *(entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT)]
sys.path += [str(ROOT), str(ROOT / "tests" / "support")]
sys.meta_path.append(_PackFinder())
_import_host(HOST, BASE)

import effort  # noqa: E402 - from tests/support, which is on the path now
import order  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--effort", choices=effort.EFFORTS, default="gate", help="how much to test; see tests/support/effort.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ[effort.VARIABLE] = config.getoption("effort")
    config.option.loadscopereorder = False  # pytest-xdist would start with the files that have the most tests


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the slowest files first, and leave out what this run's effort does not ask for."""
    items.sort(key=lambda item: order.rank(item.path.relative_to(ROOT).as_posix()))  # stable
    chosen = config.getoption("effort")
    if chosen in ("full", "wide"):
        return
    left_out = {
        item
        for item in items
        if (item.get_closest_marker("full") is not None if chosen == "gate" else not _is_beyond_the_gate(item))
    }
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _is_beyond_the_gate(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in ("full", "scaled"))


def pytest_report_header(config: pytest.Config) -> str:
    version = (HOST / "comfyui_version.py").read_text(encoding="utf-8").split('"')[1]
    return f"ComfyUI {version} at {HOST}; effort: {config.getoption('effort')}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Fork pytest-xdist's workers from one process that has imported the libraries."""
    if ON_GPU or sys.platform != "linux":  # CUDA does not work in a fork, nor do macOS's libraries; Windows has none
        return
    import warm_python

    stack = ExitStack()
    config.add_cleanup(stack.close)
    python = str(stack.enter_context(warm_python.running("preloaded", *LIBRARIES)))
    os.environ[warm_python.VARIABLE] = python
    stack.callback(os.environ.pop, warm_python.VARIABLE, None)
    for spec in specs:
        spec.python = shlex.quote(python)  # execnet splits it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests that share a server and the like in one process."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return order.unit(super()._split_scope(nodeid))

    return Scheduling(config, log)


_UNLISTED: set[tuple[str, str]] = set()  # figures that workers measured


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended."""
    _UNLISTED.update(map(tuple, node.workeroutput.get("unlisted", ())))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report measured figures that docs/COMPATIBILITY.md lacks; fail the run if CI is set."""
    figures = sys.modules.get("figures")
    page = (ROOT / "docs" / "COMPATIBILITY.md").read_text(encoding="utf-8") if figures else ""
    unlisted = {pair for pair in getattr(figures, "MEASURED", ()) if f"| {pair[0]} | {pair[1]} |" not in page}
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["unlisted"] = [list(pair) for pair in unlisted]
        return
    if missing := sorted(unlisted | _UNLISTED):
        names = "".join(f"\n  {row}: {column}" for row, column in missing)
        print(f"\nNot in docs/COMPATIBILITY.md, which `make compatibility` writes:{names}")
        if os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def host_path() -> Path:
    """The root of the ComfyUI that this run uses."""
    return HOST


@pytest.fixture(scope="session")
def pinned_host() -> Callable[[str], Path]:
    """Gives the path of any pinned ComfyUI, whichever this run uses otherwise."""
    return _host_finder.pinned_host


@pytest.fixture(scope="session")
def host_script() -> Any:
    """The module scripts/setup/host.py."""
    return _host_finder


@pytest.fixture(scope="session")
def host_base() -> Path:
    """The base directory of the host in this process: models/, input/, output/ ... all under it and temporary."""
    return BASE


@pytest.fixture(scope="session")
def pack_root() -> Path:
    """The root of the pack (this checkout)."""
    return ROOT


@pytest.fixture(scope="session")
def pack() -> Any:
    """The pack's root module, imported as the host imports it."""
    return importlib.import_module(PACK)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Also called where pytest-xdist only hands tests out."""
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def nothing_old_for_the_collector() -> None:
    """Garbage collections look only at what a file's own tests make.

    The host collects garbage whenever it samples with a model whose earlier patcher is gone, as nearly every test does,
    and going through all the libraries takes longer than such a test.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def accelerate_anew():
    """accelerate fixes the precision once for each process; the next file's trainer may want another."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)
