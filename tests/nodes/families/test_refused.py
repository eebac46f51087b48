"""Models that NASA cannot steer are refused with the reason, before anything is sampled."""

from __future__ import annotations

import pytest
import torch
from families.refused import REFUSED, refused_model

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

REASONS = {
    "ErnieImage": "no options to their attention",
    "PiD": "another model's picture",
    "Stable_Zero123": "its prompt is a picture",
}
SUPPORTED = ["SDXL", "PixArt", "Wan", "HunyuanDiT", "LTX", "Cosmos-Predict2", "Anima", "Flux", "Z-Image"]


@pytest.mark.parametrize("alpha", [0.5, 0.0])
@pytest.mark.parametrize("name", REFUSED)
def test_the_error_names_the_model_the_reason_and_supported_ones(name, alpha):
    """Also with alpha 0, where nothing would be done, so that the error does not come later."""
    negative = [[torch.randn(1, 7, 48), {}]]
    with pytest.raises(ValueError) as caught:
        apply_nasa(refused_model(name), negative, alpha=alpha, window=Window(), blocks="all")
    message = str(caught.value)
    print(message)
    assert name in message
    assert REASONS[name] in message
    assert all(family in message for family in SUPPORTED), message
