"""Bring up a real ComfyUI in this process, and the pack inside it as ``snoopi_pack``.

``import comfy.sd``, ``import nodes`` and the like are the host's modules; the pack's own are ``snoopi_pack.nodes``,
``snoopi_pack.snoopi_core`` (as the host loads them) and, as installed libraries, ``snoopi_core`` and ``training``.
SNOOPI_HOST_VERSION chooses a pinned host, COMFYUI_PATH one's own (see scripts/host.py).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

# Before torch is imported. One thread: the models here are tiny, so more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads a model
# Tests run on the CPU, where they are reproducible; SNOOPI_TEST_GPU=1 puts the host and the `gpu` tests on CUDA.
ON_GPU = os.environ.get("SNOOPI_TEST_GPU") == "1"

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PACK = "snoopi_pack"


class _PackFinder:
    """Finds the pack's root package under the name ``snoopi_pack``, on its first import and not before."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != PACK:
            return None
        init = ROOT / "__init__.py"
        return importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(ROOT)])


def _load_host_finder() -> object:
    spec = importlib.util.spec_from_file_location("snoopi_scripts_host", ROOT / "scripts" / "host.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def _import_host(host: Path, base: Path) -> None:
    """Parse the host's command line once, as its main.py would, with every folder under ``base``."""
    sys.path.insert(0, str(host))
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


def pytest_configure(config: pytest.Config) -> None:
    finder = _load_host_finder()
    try:
        host = finder.find_host()
    except finder.HostError as error:
        raise pytest.UsageError(str(error)) from None
    base = Path(tempfile.mkdtemp(prefix="snoopi-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))
    # Ours go to the end and the host to the front: `nodes` must stay the host's nodes.py.
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]
    sys.path += [str(ROOT), str(ROOT / "tests" / "support")]
    sys.meta_path.append(_PackFinder())
    _import_host(host, base)
    config.stash[_HOST], config.stash[_BASE] = host, base


_HOST = pytest.StashKey[Path]()
_BASE = pytest.StashKey[Path]()


def pytest_report_header(config: pytest.Config) -> str:
    version = (config.stash[_HOST] / "comfyui_version.py").read_text(encoding="utf-8").split('"')[1]
    return f"ComfyUI {version} at {config.stash[_HOST]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``gpu`` tests are asked for by name, and then fail rather than skip where there is no GPU."""
    if not ON_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU: set SNOOPI_TEST_GPU=1"))


@pytest.fixture(scope="session")
def host_path(request: pytest.FixtureRequest) -> Path:
    """The root of the ComfyUI that this run uses."""
    return request.config.stash[_HOST]


@pytest.fixture(scope="session")
def host_base(request: pytest.FixtureRequest) -> Path:
    """The base directory of the host in this process: models/, input/, output/ ... all under it and temporary."""
    return request.config.stash[_BASE]


@pytest.fixture(scope="session")
def pack_root() -> Path:
    """The root of the pack (this checkout)."""
    return ROOT


@pytest.fixture(scope="session")
def pack(host_path: Path) -> Iterator[object]:
    """The pack's root module, imported as the host imports it."""
    yield importlib.import_module(PACK)
