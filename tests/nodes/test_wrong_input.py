"""NASA Apply's errors for unsupported models, negatives and blocks."""

from __future__ import annotations

import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from unets import CONTEXT, case, conditioning

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.nasa.apply import apply_nasa

pytestmark = pytest.mark.host

VIDEO = {
    "image_size": 32, "in_channels": 8, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1],
    "transformer_depth": [1], "transformer_depth_middle": 1, "transformer_depth_output": [1, 1], "context_dim": 32,
    "adm_in_channels": 768, "num_classes": "sequential", "use_linear_in_transformer": True, "legacy": False,
    "use_spatial_transformer": True, "use_temporal_attention": True, "use_temporal_resblock": True, "num_heads": -1,
    "extra_ff_mix_layer": True, "use_spatial_context": True, "merge_strategy": "learned_with_images",
    "video_kernel_size": [3, 1, 1], "channel_mult": [1],
}  # fmt: skip


def host_model(config_class, arguments):
    config = config_class(arguments)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="meta")
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def steer(patcher=None, negative=None, *, alpha=0.5, blocks="all"):
    subject = case("sd15")
    negative = conditioning(subject.condition(3)) if negative is None else negative
    return apply_nasa(patcher or subject.patcher, negative, alpha=alpha, window=Window(), blocks=blocks)


@pytest.mark.parametrize(
    ("config_class", "arguments", "name"),
    [
        (comfy.supported_models.SVD_img2vid, VIDEO, r"SVD_img2vid \(network UNetModel\)"),
    ],
)
@pytest.mark.parametrize("alpha", [0.5, 0.0])
def test_a_model_of_another_kind(config_class, arguments, name, alpha):
    with pytest.raises(ValueError, match=f"cannot steer this model: {name}") as caught:
        steer(host_model(config_class, arguments), alpha=alpha)
    assert "Supported: Stable Diffusion UNets (SD1.x, SD2.x, SDXL)" in str(caught.value)


def test_a_negative_from_another_models_text_encoder():
    with pytest.raises(ValueError, match=f"Its width is 2048, expected {CONTEXT}") as caught:
        steer(negative=[[torch.zeros(1, 77, 2048), {}]])
    assert str(caught.value).startswith(
        "negative was made by another model's text encoder: encode it with this model's own CLIP"
    )


def test_no_negative_at_all():
    with pytest.raises(ValueError, match="negative contains no prompt"):
        apply_nasa(case("sd15").patcher, [], alpha=0.5, window=Window(), blocks="all")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"area": (4, 4, 0, 0)}, r"an area \(connect a mask to NASA Apply"),
        ({"mask": torch.ones(1, 8, 8)}, r"a mask \(connect it to NASA Apply"),
        ({"hooks": object()}, "hooks"),
        ({"gligen": ("position", None, [])}, "GLIGEN boxes"),
        ({"strength": 0.5}, r"a strength \(use alpha"),
    ],
)
def test_a_negative_with_a_place_or_hooks(settings, words):
    with pytest.raises(ValueError, match=f"negative must be a plain prompt, but has {words}"):
        steer(negative=conditioning(case("sd15").condition(3), **settings))


def test_a_negative_of_negative_strength():
    with pytest.raises(ValueError, match="negative has strength -1, expected 0 or more"):
        steer(negative=conditioning(case("sd15").condition(3), strength=-1.0) * 2)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(3, 4, 8, 8), r"mask is \(3, 4, 8, 8\), expected \(height, width\)"),
        (torch.zeros(1, 0, 8), r"mask is \(1, 0, 8\)"),
        (torch.full((8, 8), 1.5), "mask has values from 1.5 to 1.5"),
        (torch.full((8, 8), -0.5), "mask has values from -0.5"),
        (torch.full((8, 8), float("nan")), "mask has values from nan"),
    ],
)
def test_invalid_masks(mask, words):
    subject = case("sd15")
    negative = conditioning(subject.condition(3))
    with pytest.raises(ValueError, match=words):
        apply_nasa(subject.patcher, negative, alpha=0.5, window=Window(), blocks="all", mask=mask)


def test_settings_unrelated_to_cross_attention_are_accepted():
    """ControlNet's apply node marks the negative too."""
    assert steer(negative=conditioning(case("sd15").condition(3), control=object(), strength=1.0)) is not None


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_not_a_number(alpha):
    """The host's own input check accepts NaN, which Python's JSON allows."""
    with pytest.raises(ValueError, match=f"alpha is {alpha}, expected a number"):
        steer(alpha=alpha)


def test_blocks_that_the_model_does_not_have():
    with pytest.raises(ValueError, match=r"no cross-attention in 'input.0'") as caught:
        steer(blocks="input.0")
    assert "input.1, input.3, middle.0, output.2-5" in str(caught.value)
