"""NASA in diffusers: it equals the formula, and the network is unchanged afterwards."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from training.models.guidance.nasa import nasa
from training.models.text_embeddings import TextEmbeddings


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return (
        UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=32,
        )
        .double()
        .eval()
    )


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 4, 8, 8), (2, 7, 16), (1, 5, 16))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def explicit(unet, x, positive, negative, alpha):
    """NASA by hooks and an explicit softmax: Z is recomputed and swapped in before the output projection."""
    handles = []
    for _, module in unet.named_modules():
        if not hasattr(module, "attn2"):
            continue
        attn = module.attn2

        def swap(out, args, attn=attn):
            q = attn.last_query
            z = []
            for context in (positive, negative.expand(len(positive), -1, -1)):
                k, v = context @ attn.to_k.weight.T, context @ attn.to_v.weight.T
                heads = []
                for qh, kh, vh in zip(
                    q.chunk(attn.heads, 2), k.chunk(attn.heads, 2), v.chunk(attn.heads, 2), strict=True
                ):
                    weights = torch.softmax(qh @ kh.transpose(1, 2) / qh.shape[2] ** 0.5, dim=2)
                    heads.append(weights @ vh)
                z.append(torch.cat(heads, dim=2))
            return (z[0] - alpha * z[1],)

        handles.append(attn.to_q.register_forward_hook(lambda m, a, out, attn=attn: setattr(attn, "last_query", out)))
        handles.append(attn.to_out[0].register_forward_pre_hook(swap))
    try:
        return unet(x, 999, positive).sample
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def test_it_is_the_formula(unet, inputs):
    x, positive, negative = inputs
    for alpha in (0.3, 1.0):
        with nasa(unet, TextEmbeddings(states=negative), alpha):
            got = unet(x, 999, positive).sample
        expected = explicit(unet, x, positive, negative, alpha)
        assert (got - expected).norm() / expected.norm() < 1e-12
        assert (got - unet(x, 999, positive).sample).norm() / expected.norm() > 1e-4


@torch.no_grad()
def test_alpha_zero_and_leaving_the_context_change_nothing(unet, inputs):
    x, positive, negative = inputs
    plain, processors = unet(x, 999, positive).sample, dict(unet.attn_processors)
    with nasa(unet, TextEmbeddings(states=negative), 0.0):
        assert torch.equal(unet(x, 999, positive).sample, plain)
    with pytest.raises(RuntimeError, match="stop"), nasa(unet, TextEmbeddings(states=negative), 0.5):
        raise RuntimeError("stop")
    assert unet.attn_processors == processors
    assert torch.equal(unet(x, 999, positive).sample, plain)


@torch.no_grad()
def test_wrong_negatives_are_refused(unet, inputs):
    x, positive, negative = inputs
    with (
        pytest.raises(ValueError, match="expected 1 or 2"),
        nasa(unet, TextEmbeddings(states=negative.expand(3, -1, -1)), 0.5),
    ):
        unet(x, 999, positive)


def test_a_network_without_cross_attention_is_refused(inputs):
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "mid_block_type": None}
    unet = UNet2DConditionModel(sample_size=8, block_out_channels=(32,), **blocks)
    with (
        pytest.raises(ValueError, match="UNet2DConditionModel has no cross-attention"),
        nasa(unet, TextEmbeddings(states=inputs[2]), 0.5),
    ):
        pass
