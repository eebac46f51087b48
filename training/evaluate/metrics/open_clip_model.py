"""An open_clip model for the CLIP score, HPSv2 and the zero-shot judge, from a local file or from the hub.

Dimensions: B images or texts, E width of the embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import open_clip
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms import Normalize

from snoopi_core.formats.tensor_file import readable
from training.config import find_file
from training.evaluate.metrics.weights import missing

_LOCAL = ("local-dir:", "hf-hub:")


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
            weights: a file, or open_clip's tag; not looked at where the folder holds weights and `weights` is "".
            option: of the command line that names the weights, for messages.
            prepare: from the input's side and the model's normalisation, what prepares a picture; None = open_clip's.

        Raises:
            MissingWeights: they are neither here nor to be had.
            ValueError: no such model, or the weights are another model's.
        """
        file = find_file(weights) if weights else None
        here = file is not None and file.is_file()
        logging.disable(logging.WARNING)  # it would call a model random whose weights come in the next moment
        try:
            self.model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=None if here or name.startswith(_LOCAL) else weights,
                load_weights=not here,
                require_pretrained=not here,
            )
        except (RuntimeError, OSError, ValueError) as error:
            known = name in open_clip.list_models()
            if known or name.startswith("hf-hub:"):
                raise missing(name, weights, option, readable(str(error), 300)) from error
            raise ValueError(
                f"CLIP model {name!r} cannot be built ({readable(str(error), 300)}); expected local-dir:FOLDER, or one "
                f"of open_clip's names, such as ViT-H-14"
            ) from error
        finally:
            logging.disable(logging.NOTSET)
        if here:
            self._read(name, str(file))
        self.weights = weights if here or not name.startswith(_LOCAL) else ""  # "": the folder's own
        self.model = self.model.to(device).eval().requires_grad_(False)
        self.device = device
        self.tokenize = open_clip.get_tokenizer(name)
        size = self.model.visual.image_size
        side = size if isinstance(size, int) else size[0]
        normalise = preprocess.transforms[-1]  # open_clip ends every preprocessing with Normalize
        self.prepare = preprocess if prepare is None else prepare(side, normalise)

    def _read(self, name: str, path: str) -> None:
        try:
            open_clip.load_checkpoint(self.model, path)
        except Exception as error:  # whatever the file is: pickles of other programs fail in every way
            raise ValueError(
                f"{path} does not hold the weights of {name}: {readable(str(error), 300)}; "
                "name the model that they belong to, or download them again"
            ) from error

    @torch.no_grad()
    def images(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(B, E) of B pictures, of length 1."""
        return self.encode(torch.stack([self.prepare(picture) for picture in pictures]))

    @torch.no_grad()
    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, E) of B prepared pictures (B, 3, H, W), of length 1."""
        return functional.normalize(self.model.encode_image(inputs.to(self.device)).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, E) of B texts, of length 1."""
        return functional.normalize(self.model.encode_text(self.tokenize(list(texts)).to(self.device)).float(), dim=-1)
