"""An open_clip model for the CLIP score, HPSv2 and the zero-shot judge, from a local file or from the hub.

Dimensions: B images or texts, E width of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import open_clip
import torch
from huggingface_hub import file_exists, try_to_load_from_cache
from PIL import Image
from torch.nn import functional
from torchvision.transforms import Normalize

from snoopi_core.formats.tensor_file import open_tensor_file, readable
from training.config import find_file
from training.console import long_step
from training.evaluate.metrics.weights import missing_clip

_LOCAL = ("local-dir:", "hf-hub:")
# names of weights on the hub and in folders, in the order in which open_clip looks for them
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class OpenClip:
    """A frozen open_clip model. `prepare` turns a picture into its input (3, H, W)."""

    def __init__(
        self,
        name: str,
        weights: str,
        device: torch.device,
        *,
        option: str,
        prepare: Callable[[int, Normalize], Callable[[Image.Image], torch.Tensor]] | None = None,
    ) -> None:
        """Load the model.

        Args:
            name: open_clip's, or local-dir:FOLDER.
            weights: a file or open_clip's tag; with local-dir:FOLDER "" takes the weights in the folder.
            option: the option of the command line that names the weights, for messages.
            prepare: makes the preprocessing from the input's side and the model's normalisation; None: open_clip's.

        Raises:
            MissingWeights: the weights are not on this machine and cannot be downloaded.
            ValueError: there is no such model, or the weights are another model's.
        """
        file = find_file(weights) if weights else None
        from_file = file is not None and file.is_file()
        try:
            with long_step(f"loading {name}", at_once=False):
                self.model, _, preprocess = open_clip.create_model_and_transforms(
                    name,
                    pretrained=None if from_file or name.startswith(_LOCAL) else weights,
                    load_weights=not from_file,
                    require_pretrained=not from_file,
                )
        except (RuntimeError, OSError, ValueError) as error:
            if name in open_clip.list_models() or name.startswith("hf-hub:"):
                raise missing_clip(name, weights, option, readable(str(error), 300)) from error
            raise ValueError(
                f"CLIP model {name!r} cannot be built ({readable(str(error), 300)}); expected local-dir:FOLDER, or one "
                f"of open_clip's names, such as ViT-H-14"
            ) from error
        if from_file:
            self._load(name, str(file))
        self.weights = weights if from_file or not name.startswith(_LOCAL) else ""  # "": the weights in the folder
        self.model = self.model.to(device).eval().requires_grad_(False)
        self.device = device
        self.tokenize = open_clip.get_tokenizer(name)
        size = self.model.visual.image_size
        side = size if isinstance(size, int) else size[0]
        normalise = preprocess.transforms[-1]  # in every open_clip preprocessing, the last transform
        self.prepare = preprocess if prepare is None else prepare(side, normalise)

    def _load(self, name: str, path: str) -> None:
        try:
            open_clip.load_checkpoint(self.model, path)
        except Exception as error:  # unpickling an unknown file can raise anything
            raise ValueError(
                f"{path} does not hold the weights of {name}: {readable(str(error), 300)}; "
                "name the model that they belong to, or download them again"
            ) from error

    @torch.no_grad()
    def images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Normalised embeddings (B, E) of B pictures."""
        return self.encode(torch.stack([self.prepare(picture) for picture in pictures]))

    @torch.no_grad()
    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised embeddings (B, E) of B prepared pictures (B, 3, H, W)."""
        return functional.normalize(self.model.encode_image(inputs.to(self.device)).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Normalised embeddings (B, E) of B texts."""
        return functional.normalize(self.model.encode_text(self.tokenize(list(texts)).to(self.device)).float(), dim=-1)


def check_open_clip(name: str, weights: str, *, option: str) -> None:
    """Check, without loading it, that a model's weights are on this machine, or on a hub that can be reached.

    Args: as of `OpenClip`.

    Raises:
        MissingWeights: they are not.
        ValueError: a local file is damaged.
    """
    file = find_file(weights)
    if weights and file.is_file():
        if file.suffix == ".safetensors":
            open_tensor_file(file)
        return
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
            raise missing_clip(name, weights, option, f"{folder} has none")
        return
    config = open_clip.get_pretrained_cfg(name, weights) if not name.startswith("hf-hub:") else None
    hub, _, own = (config or {"hf_hub": name.removeprefix("hf-hub:") + "/"}).get("hf_hub", "").rpartition("/")
    files = [own.replace(".bin", ".safetensors"), own] if own else _FILES
    if not hub or any(isinstance(try_to_load_from_cache(hub, one), str) for one in files):
        return  # without a hub: open_clip's own address, which it keeps in a cache of its own
    try:
        if any(file_exists(hub, one) for one in files):
            return
        reason = f"the hub's {hub} has none"
    except Exception as error:  # which errors a network raises depends on the version of the hub's library
        reason = readable(str(error), 300)
    raise missing_clip(name, weights, option, reason)
