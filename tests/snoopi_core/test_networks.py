"""Reasons for refusals."""

from __future__ import annotations

import pytest

from snoopi_core.networks import NETWORKS, why_refused


@pytest.mark.parametrize(
    ("network", "model", "words"),
    [
        ("ErnieImageModel", "ErnieImage", "no options"),
        ("StageC", "StableCascade_C", "the picture's own tokens"),
        ("StageB", "StableCascade_B", "one vector for the whole prompt"),
        ("GeneralDIT", "CosmosVideo", "no few-step version"),
        ("Hunyuan3Dv2", "Hunyuan3Dv2", "its prompt is a picture"),
        ("UNetModel", "SVD_img2vid", "its prompt is a picture"),
        ("UNetModel", "BaseModel", "no attention to a text"),
        ("Tomorrow", "Tomorrow", "newer than this version"),
    ],
)
def test_a_refusal_has_its_reason(network, model, words):
    assert words in why_refused(network, model)


def test_a_network_is_either_measured_or_refused_with_a_reason():
    assert all(bool(network.rows) != bool(network.why) for network in NETWORKS.values())
