"""Everything that touches the host: the only package that imports `comfy` and `folder_paths`.

A model is changed only through the host's ModelPatcher, on a clone, and only for the length of a call: no weight,
module or forward of the host is replaced for good, and none is copied.
"""
