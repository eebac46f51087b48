import json
from functools import partial

import open_clip
import pytest
import torch
from diffusers import AutoencoderTiny
from tiny import tiny_backbone
from tiny_clip import CONFIG, write_tiny_clip

from training.config import Clip
from training.distill.clip_loss import ClipLoss, check_clip_files, clip_rows, load_tiny_vae
from training.distill.losses import clip_loss
from training.models.backbone import decode_latents

PROMPTS = ["a red ring", "a square", "blue", "a plus"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """From a local folder, as a user would name it."""
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def judge(weights, decode=torch.sigmoid, **changes):
    section = Clip(model=f"local-dir:{weights}", **changes)
    return ClipLoss(section, decode, torch.device("cpu"))


def test_loss_is_the_formula():
    image, text = torch.randn(5, 8), torch.randn(5, 8)
    cosine = (image * text).sum(1) / image.norm(dim=1) / text.norm(dim=1)
    assert clip_loss(image, text, 0.37).item() == pytest.approx((0.37 - cosine).clamp(min=0).mean().item(), rel=1e-6)
    assert clip_loss(image, image, 0.37).item() == 0


def test_gradient_reaches_x0_and_equals_finite_differences(weights):
    clip = judge(weights, margin=1.0, share=1.0)
    clip.model.double()
    clip.mean, clip.std = clip.mean.double(), clip.std.double()
    clip.embed_prompts = lambda prompts, embed=clip.embed_prompts: embed(prompts).double()
    rng = torch.Generator().manual_seed(1)
    x0 = torch.randn((4, 3, 16, 16), generator=rng, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(x0.shape, generator=rng, dtype=torch.float64)
    image = clip.embed_images(torch.sigmoid(x0))
    text = clip.embed_prompts(PROMPTS)

    def loss(x):  # clip_loss computes in fp32; differences need more digits
        return (1.0 - torch.cosine_similarity(clip.embed_images(torch.sigmoid(x)), text)).mean()

    assert image.dtype == torch.float64
    (gradient,) = torch.autograd.grad(clip.loss(x0, PROMPTS), x0)
    step = 1e-5
    numeric = (loss(x0 + step * direction) - loss(x0 - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numeric.item(), rel=1e-4)


def test_gradient_through_a_tiny_decoder_equals_finite_differences(weights, tmp_path):
    tiny_vae(tmp_path)
    vae = load_tiny_vae(str(tmp_path)).double()
    clip = judge(weights, decode=partial(decode_latents, vae), margin=1.0)
    clip.model.double()
    clip.mean, clip.std = clip.mean.double(), clip.std.double()
    rng = torch.Generator().manual_seed(1)
    x0 = 0.1 * torch.randn((2, 4, 4, 4), generator=rng, dtype=torch.float64)
    direction = torch.randn(x0.shape, generator=rng, dtype=torch.float64)
    text = clip.embed_prompts(PROMPTS[:2])

    def loss(x):  # clip_loss computes in fp32; differences need more digits
        return (1.0 - torch.cosine_similarity(clip.embed_images(clip.decode(x)), text.double())).mean()

    assert clip.decode(x0).min() > 0 and clip.decode(x0).max() < 1, "the clamp hides gradients"
    leaf = x0.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(clip.loss(leaf, PROMPTS[:2]), leaf)
    numeric = (loss(x0 + 1e-5 * direction) - loss(x0 - 1e-5 * direction)) / 2e-5
    assert (gradient * direction).sum().item() == pytest.approx(numeric.item(), rel=1e-4)


def tiny_vae(folder):
    """A small model of TAESD's class; its weights keep images away from black and white, where clamping starts."""
    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8)}
    blocks = {"num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1)}
    vae = AutoencoderTiny(**sizes, **blocks)
    last = vae.decoder.layers[-1]
    last.weight.data.mul_(0.1)
    last.bias.data.fill_(0.5)
    vae.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["nowhere", "something else"])
def test_an_invalid_decoder_is_reported(tmp_path, kind):
    if kind == "something else":
        tiny_backbone().vae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"clip\.decoder .* cannot be loaded.*AutoencoderTiny"):
        load_tiny_vae(str(tmp_path))


def test_weights_are_required(tmp_path):
    """Without them, open_clip would use random ones."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}), encoding="utf-8")
    section = Clip(model=f"local-dir:{tmp_path}")
    with pytest.raises(ValueError, match="cannot be loaded"):
        ClipLoss(section, torch.sigmoid, torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match="has no weights"):
        check_clip_files(section)  # in a dry run
    (tmp_path / "weights.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"weights\.bin is a pointer of git-lfs"):
        check_clip_files(section)


def test_weights_may_be_named_as_every_other_file_of_a_recipe(tmp_path, monkeypatch):
    asked = []

    def create(model, pretrained, **settings):
        asked.append(pretrained)
        raise OSError("stopped here")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clip.pt").touch()
    for name in ("~/clip.pt", "openai"):
        with pytest.raises(ValueError, match="stopped here"):
            ClipLoss(Clip(pretrained=name), torch.sigmoid, torch.device("cpu"))
    assert asked == [str(tmp_path / "clip.pt"), "openai"]


def test_clip_is_not_trained(weights):
    clip = judge(weights, margin=1.0)
    x0 = torch.randn(4, 3, 16, 16, requires_grad=True)
    clip.loss(x0, PROMPTS).backward()
    assert x0.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())


def test_images_are_prepared_as_open_clip_prepares_them(weights):
    from PIL import Image

    clip = judge(weights)
    pixels = torch.randint(0, 256, (3, 48, 48), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{weights}")
    theirs = clip.model.encode_image(preprocess(Image.fromarray(pixels.permute(1, 2, 0).numpy()))[None])
    ours = clip.embed_images(pixels[None] / 255)
    # open_clip rounds to bytes after resizing.
    assert torch.cosine_similarity(ours, theirs).item() > 0.9999


def test_missing_weights_are_reported(tmp_path):
    with pytest.raises(ValueError, match=r"weights 'nowhere.pt' cannot be loaded.*clip.weight=0"):
        ClipLoss(Clip(model="ViT-B-32", pretrained="nowhere.pt"), torch.sigmoid, torch.device("cpu"))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 4, 64])
def test_judged_rows_are_the_given_share_evenly_spread(share, batch):
    rows = clip_rows(share, batch)
    assert len(rows) == max(1, round(share * batch)) and all(0 <= row < batch for row in rows)
    halves = [sum(row in rows for row in half) for half in (range(batch // 2), range(batch // 2, batch))]
    assert abs(halves[0] - halves[1]) <= 1
