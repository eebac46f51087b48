"""SNOOPI for ComfyUI: negative prompts for one-step models (NASA), and one-step models (PG-SB)."""

import logging
import re
from importlib.util import find_spec

WEB_DIRECTORY = "./web"
OLDEST_HOST = "0.16.3"  # as requires-comfyui in pyproject.toml, which the host does not enforce
__all__ = ["WEB_DIRECTORY"]


def host_version() -> str:
    try:
        from comfyui_version import __version__
    except ImportError:
        return "0.3 or older"
    return __version__


def too_old(version: str) -> bool:
    oldest, found = ([int(n) for n in re.findall(r"\d+", text)[:3]] for text in (OLDEST_HOST, version))
    return found < oldest


# Test runners and packaging tools import this file too; without the host it does nothing. The nodes are imported here
# and not in the entry point, because the host logs no traceback for errors there.
if __package__ and find_spec("folder_paths") is not None:
    if too_old(host_version()):
        logging.warning(
            "SNOOPI is not loaded: this is ComfyUI %s, SNOOPI needs %s or newer. Update ComfyUI.",
            host_version(),
            OLDEST_HOST,
        )
        NODE_CLASS_MAPPINGS: dict[str, type] = {}  # without it, the host would log a second error
        WEB_DIRECTORY = None
    else:
        from .nodes import comfy_entrypoint

        __all__ += ["comfy_entrypoint"]
