"""Models from any file: diffusers folders (local or on the hub), single files of Stable Diffusion and PixArt, our own.

find.py recognises a model's format; folder.py and single_file.py read its parts. load.py makes a backbone of them;
compare.py loads the weights of a network alone.
"""

from training.models.loading.compare import load_matching_weights, load_network
from training.models.loading.find import open_model, scheduler_config
from training.models.loading.load import describe_encoder, load_backbone, load_teacher, merge_loras

__all__ = [
    "describe_encoder",
    "load_backbone",
    "load_matching_weights",
    "load_network",
    "load_teacher",
    "merge_loras",
    "open_model",
    "scheduler_config",
]
