"""Put a real ComfyUI on the import path, as the tests do; call it before anything of `comfy` is imported."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from scripts.setup.host import find_host


def start_host() -> None:
    """Nothing happens where ComfyUI is there already, as in the tests."""
    if find_spec("comfy") is not None:
        return
    sys.path.insert(0, str(find_host()))
    import comfy.options

    own, sys.argv = sys.argv, ["main.py", "--cpu", "--use-pytorch-cross-attention"]
    comfy.options.enable_args_parsing()
    try:
        import comfy.cli_args
    finally:
        sys.argv = own
