"""Models from any file: diffusers folders (local or on the hub), single files of Stable Diffusion and PixArt, our own.

find.py recognises a model's format, and one module for each format (folder.py, single_file.py, contract.py) reads its
parts. load.py makes a backbone of them; compare.py loads the weights of a network alone.
"""

from training.models.loading.compare import load_matching_weights, load_network
from training.models.loading.find import open_model, scheduler_config
from training.models.loading.load import load_backbone, load_parts, load_teacher

__all__ = [
    "load_backbone",
    "load_matching_weights",
    "load_network",
    "load_parts",
    "load_teacher",
    "open_model",
    "scheduler_config",
]
