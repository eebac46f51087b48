"""Every metric against a closed form or a second implementation, on synthetic data."""

import time

import numpy as np
import pytest
import torch
from PIL import Image
from processes import TIMEOUT
from torch.nn import functional
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchvision import transforms

from training.evaluate.metrics.batching import prepared
from training.evaluate.metrics.distribution import precision_recall
from training.evaluate.metrics.inception import clean_resize, square
from training.evaluate.metrics.summary import mean_of, styles_of
from training.evaluate.metrics.text_fit import hps_preparation
from training.evaluate.paper_protocol import shortfalls
from training.trainer.monitor.frechet import Gaussian, frechet_distance


def features(count, width, seed, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, (count, width)).astype(np.float32)


def test_fid_of_known_gaussians():
    mu, spread = np.array([0.0, 1.0, -2.0]), np.array([1.0, 2.0, 0.5])
    one = Gaussian.of_statistics(mu, np.diag(spread**2))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)
    other = Gaussian.of_statistics(mu + np.array([3.0, 0.0, 4.0]), np.diag((2 * spread) ** 2))
    assert frechet_distance(one, other) == pytest.approx(25 + np.square(spread).sum())
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]  # covariances that do not commute
    turned = Gaussian.of_statistics(mu, turn @ np.diag(spread**2) @ turn.T)
    root = np.diag(spread) @ turned.sigma @ np.diag(spread)
    expected = 2 * np.square(spread).sum() - 2 * np.sqrt(np.linalg.eigvalsh(root)).sum()
    assert frechet_distance(one, turned) == pytest.approx(expected)
    flat = Gaussian.of_statistics(mu, np.zeros((3, 3)))
    assert frechet_distance(one, flat) == pytest.approx(np.square(spread).sum())


@pytest.mark.parametrize("counts", [(300, 250), (20, 300), (15, 20)])
def test_fid_equals_torch_fidelity(counts):
    one, other = features(counts[0], 32, 0), features(counts[1], 32, 1, shift=0.3, scale=1.5)
    statistics = [fid_features_to_statistics(torch.from_numpy(f)) for f in (one, other)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    got = frechet_distance(Gaussian.of_features(one), Gaussian.of_features(other))
    assert got == pytest.approx(expected, rel=1e-4)
    kept = Gaussian.of_statistics(statistics[1]["mu"], statistics[1]["sigma"])
    assert frechet_distance(Gaussian.of_features(one), kept) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="two images or more, got 1"):
        Gaussian.of_features(one[:1])


def by_hand(made, real, k):
    """Kynkäänniemi et al., Equation 1 and 2, in plain loops."""

    def share(points, among):
        radii = [sorted(np.linalg.norm(a - b) for b in among)[k] for a in among]
        inside = [any(np.linalg.norm(p - a) <= r for a, r in zip(among, radii, strict=True)) for p in points]
        return sum(inside) / len(inside)

    return share(made, real), share(real, made)


def test_precision_and_recall():
    real, made = features(40, 4, 0), features(30, 4, 1, shift=0.8)
    assert precision_recall(made, real, 3) == pytest.approx(by_hand(made, real, 3))
    assert 0 < by_hand(made, real, 3)[0] < 1
    assert precision_recall(real, real, 3) == (1.0, 1.0)
    assert precision_recall(made + 100, real, 3) == (0.0, 0.0)
    half = np.concatenate([real[:20], made[:20] + 100])  # half of it real, half far away
    assert precision_recall(half, real, 3)[0] == 0.5
    two_modes = np.concatenate([real, real + 100])  # the generated ones cover one of two modes
    assert precision_recall(real, two_modes, 3) == (1.0, 0.5)
    with pytest.raises(ValueError, match="more than 3 images on either side, got 3"):
        precision_recall(real[:3], real, 3)


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_the_clean_resize_is_antialiased_bicubic_with_fractions():
    for size in ((64, 64), (512, 384)):
        image = picture(*size)
        got = clean_resize(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        expected = functional.interpolate(pixels, (299, 299), mode="bicubic", antialias=True)[0].clamp(0, 255)
        assert got.shape == (3, 299, 299) and (got - expected).abs().max() < 0.05
        assert (got != got.round()).any()


def test_center_crop_by_lanczos():
    image = Image.new("RGB", (500, 300), "red")
    image.paste("blue", (100, 0, 400, 300))
    assert np.unique(np.array(square(image, 256)).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]
    assert square(image, 256).size == (256, 256)


def test_hps_prepares_images_like_hpsv2():
    normalise = transforms.Normalize((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    prepare = hps_preparation(224, normalise)
    plain = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Resize(224, transforms.InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(224),
            normalise,
        ]
    )
    for side in (512, 64, 224):
        torch.testing.assert_close(prepare(picture(side, side)), plain(picture(side, side)), rtol=0, atol=0)
    wide = prepare(picture(512, 256))
    black = normalise(torch.zeros(3, 1, 1))
    assert wide.shape == (3, 224, 224)
    assert torch.equal(wide[:, :56], black.expand(3, 56, 224)) and torch.equal(wide[:, -56:], wide[:, :56])
    middle = transforms.Resize((112, 224), transforms.InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(wide[:, 56:168], normalise(middle(transforms.ToTensor()(picture(512, 256)))))


def test_summaries():
    values = [1.0, 2.0, 3.0, 4.0]
    assert mean_of(values) == {"value": 2.5, "standard_error": pytest.approx(np.std(values, ddof=1) / 2), "images": 4}
    assert mean_of([1.0])["standard_error"] is None
    styles = styles_of([1.0, 3.0, 5.0, 7.0, 9.0], ["a", "b", "a", "a", "a"], 2)
    assert styles["a"] == {"value": 5.5, "spread": pytest.approx(np.std([3, 8], ddof=1)), "images": 4}
    assert styles["b"] == {"value": 3.0, "spread": None, "images": 1}


def test_batches_are_prepared_ahead_and_in_order():
    begun = []

    def prepare(item):
        begun.append(item)
        return torch.tensor(item)

    made = prepared(range(7), prepare, 2, threads=1)
    assert next(made).tolist() == [0, 1]
    deadline = time.monotonic() + TIMEOUT
    while len(begun) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert begun == [0, 1, 2, 3]  # only the next batch, since more would fill the memory
    assert [batch.tolist() for batch in made] == [[2, 3], [4, 5], [6]]


def test_differences_from_the_paper_are_listed():
    coco = {"reference_images": 40_504, "side": 256}
    groups = dict.fromkeys(("anime", "photo", "concept-art", "paintings"), 800)
    assert shortfalls({"": 30_000}, {"fid": coco, "prc": coco | {"k": 3}}).keys() == {"hps"}
    assert shortfalls(groups, {"hps-v2.1": {"model": "ViT-H-14"}}).keys() == {"fid", "prc", "clip"}
    told = shortfalls(
        {"": 30_000},
        {"fid": coco | {"reference_images": 30_000}, "prc": coco | {"k": 5, "side": None}}
        | {"clip": {"model": "ViT-B-32", "prefix": ""}},
    )
    assert told["fid"] == "a reference of 30000 images; the paper's is COCO-2014 val, 40504"
    assert told["prc"] == "side None, the paper's 256; k 5, the paper's 3"
    assert told["clip"] == "model 'ViT-B-32', the paper's 'ViT-g-14'; prefix '', the paper's 'A photo depicts '"
