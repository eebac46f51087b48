"""Everything that touches the host, ComfyUI: the only package that imports `comfy` and `folder_paths`.

Models are changed only through the host's ModelPatcher, on a clone, and only for the duration of a call: no weight,
module or forward of the host is replaced permanently, and none is copied.
"""
