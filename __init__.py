"""SNOOPI for ComfyUI: negative prompts for one-step models (NASA) and one-step models themselves (PG-SB)."""

from importlib.util import find_spec

WEB_DIRECTORY = "./web"
__all__ = ["WEB_DIRECTORY"]

# Test runners and packaging tools import this file too. Without the host it does nothing; with it, the nodes are
# imported here rather than inside the entry point, because the host logs no traceback for errors in there.
if __package__ and find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    __all__ += ["comfy_entrypoint"]
