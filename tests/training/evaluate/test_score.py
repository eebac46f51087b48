"""The score command, with tiny or random weights of the real classes; missing weights and invalid files."""

import json
import shutil
import sys

import numpy as np
import open_clip
import pytest
import torch
from evaluation import error_of, evaluate
from PIL import Image
from safetensors.torch import save_file
from tiny_clip import CONFIG, write_tiny_clip
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from training.evaluate.__main__ import main
from training.evaluate.metrics.inception import Inception, clean_resize
from training.evaluate.metrics.plugins import _pick_score
from training.evaluate.metrics.text_fit import hps_preparation
from training.evaluate.sets.image_files import list_images, read_image
from training.evaluate.sets.manifest import read_manifest
from training.models.clip_tokenizer import clip_tokenizer


def brightness(pictures, prompts):
    """A plug-in."""
    return [float(np.asarray(picture).mean()) for picture in pictures]


def wrong(pictures, prompts):
    return [1.0]


def once(pictures, prompts):
    if once.calls:
        raise ValueError("it broke")
    once.calls.append(1)
    return [1.0] * len(pictures)


once.calls = []


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder for local-dir:, and a file with other weights of the same model, in the format of HPSv2's file."""
    folder = write_tiny_clip(tmp_path_factory.mktemp("clip"))
    torch.manual_seed(7)
    torch.save({"state_dict": open_clip.CLIP(**CONFIG).state_dict()}, folder / "hps.pt")
    return folder


@pytest.fixture(scope="module")
def two(removal_sets, tmp_path_factory):
    """none/ and nasa-1/ with only 5 images each listed, since Inception is slow."""
    out = tmp_path_factory.mktemp("two")
    for name in ("none", "nasa-1"):
        shutil.copytree(removal_sets / name, out / name)
        path = out / name / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(manifest | {"images": manifest["images"][1::2][:5]}), encoding="utf-8")
    return out


def read(path):
    return {row["method"]: row for row in json.loads(path.read_text(encoding="utf-8"))["sets"]}


def tiny(clip):
    words = ("--clip-model", f"local-dir:{clip}", "--clip-weights", "", "--hps-model", f"local-dir:{clip}")
    return (*words, "--hps-v2.0-weights", clip / "hps.pt", "--hps-v2.1-weights", clip / "open_clip_model.safetensors")


@pytest.mark.slow
def test_fid_precision_and_recall(two, reference, inception, tmp_path, capsys):
    kept, out = tmp_path / "reference.npz", tmp_path / "scores.json"
    words = ("score", two, "--metrics", "fid", "prc", "--inception-weights", inception, "--out", out)
    evaluate(*words, "--reference", reference, "--save-reference", kept, "--neighbours", 2)
    first = read(out)
    assert first["none"]["scores"]["fid"]["value"] > 1e-3
    for row in first.values():
        assert row["scores"]["fid"]["images"] == 5 and row["scores"]["fid"]["reference_images"] == 6
        assert "2000 in its ablations" in row["shortfalls"]["fid"]
        assert "a reference of 6 images; the paper's is COCO-2014 val, 40504; side None" in row["shortfalls"]["fid"]
        assert row["shortfalls"]["prc"].endswith("k 2, the paper's 3")
    network = Inception(inception, torch.device("cpu"))
    made = [read_image(two / "none" / row.file) for row in read_manifest(two / "none").images]
    real = [read_image(path) for path in list_images(reference)]
    seen = [network.features(torch.stack([clean_resize(p) for p in some])).astype(float) for some in (made, real)]
    # FID by a matrix square root
    (mu_1, s_1), (mu_2, s_2) = ((f.mean(0), np.cov(f, rowvar=False)) for f in seen)
    low = np.linalg.svd((seen[0] - mu_1) @ (seen[1] - mu_2).T / np.sqrt(4 * 5), compute_uv=False).sum()
    expected = ((mu_1 - mu_2) ** 2).sum() + np.trace(s_1) + np.trace(s_2) - 2 * low
    assert first["none"]["scores"]["fid"]["value"] == pytest.approx(expected, rel=1e-3)
    # without resizing, the network's features equal the library's
    exact = clean_resize(real[0].resize((299, 299), Image.Resampling.NEAREST))[None]
    plain = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception))
    torch.testing.assert_close(
        torch.from_numpy(network.features(exact)), plain(exact.to(torch.uint8))[0], rtol=1e-4, atol=1e-5
    )
    with np.load(kept) as file:
        np.savez(tmp_path / "other.npz", **{name: file[name] for name in file} | {"weights": "0" * 64})
    other = main([*map(str, words), "--reference", str(tmp_path / "other.npz")])
    assert other == 2 and "with other Inception weights (000000000000, got" in capsys.readouterr().err
    evaluate(*words, "--reference", kept, "--neighbours", 2)
    for method, row in read(out).items():
        for name in ("value", "precision", "recall"):
            for metric in ("fid", "prc"):
                if name in row["scores"][metric]:
                    assert row["scores"][metric][name] == pytest.approx(first[method]["scores"][metric][name], rel=1e-3)


def test_clip_and_hps_are_cosine_similarities(two, clip, tmp_path):
    out = tmp_path / "scores.json"
    evaluate("score", two, "--metrics", "clip", "hps-v2.0", "hps-v2.1", *tiny(clip), "--out", out, "--batch", 2)
    rows = read_manifest(two / "nasa-1").images
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{clip}")

    @torch.no_grad()
    def cosines(prepare, prefix):
        images = torch.stack([prepare(read_image(two / "nasa-1" / row.file)) for row in rows])
        seen, texts = model.encode_image(images), model.encode_text(tokenize([prefix + row.prompt for row in rows]))
        return torch.cosine_similarity(seen, texts).double()

    scores = read(out)["nasa:1"]["scores"]
    expected = cosines(prepare, "A photo depicts ")
    assert scores["clip"]["value"] == pytest.approx(expected.mean().item(), rel=1e-4)
    assert scores["clip"]["standard_error"] == pytest.approx((expected.std() / 5**0.5).item(), rel=1e-3)
    assert (scores["clip"]["prefix"], scores["clip"]["weights"]) == ("A photo depicts ", "")  # from the folder
    own = hps_preparation(32, prepare.transforms[-1])
    assert scores["hps-v2.1"]["value"] == pytest.approx(100 * cosines(own, "").mean().item(), rel=1e-4)
    assert (scores["hps-v2.0"]["version"], scores["hps-v2.1"]["version"]) == ("v2.0", "v2.1")
    model.load_state_dict(torch.load(clip / "hps.pt", weights_only=True)["state_dict"])
    assert scores["hps-v2.0"]["value"] == pytest.approx(100 * cosines(own, "").mean().item(), rel=1e-4)


def test_missing_weights_are_reported_and_other_metrics_run(two, clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    out = tmp_path / "scores.json"
    words = ("score", two, "--out", out, "--reference", two / "none", "--clip-weights", "laion2b_s12b_b42k")
    assert main([*map(str, words), "--plugins", f"{__name__}:brightness", "imagereward"]) == 0
    output = capsys.readouterr()
    for name, parts in {
        "fid": ("96 MB", "weights-inception-2015-12-05-6726825d.pth", str(tmp_path), "--inception-weights"),
        "clip": ("ViT-g-14 (5.5 GB)", "--clip-weights"),
        "hps-v2.1": ("HPS_v2.1_compressed.pt (2 GB)", "xswu/HPSv2", "--hps-v2.1-weights"),
        "imagereward": ("pip install image-reward",),
    }.items():
        line = next(line for line in output.err.splitlines() if line.startswith(f"not run: {name}:"))
        assert all(part in line for part in parts), line
    row = read(out)["none"]
    assert list(row["scores"]) == [f"{__name__}:brightness"] and set(row["not_run"]) >= {"fid", "prc", "clip"}
    # measured later, and added to the earlier results
    evaluate("score", two, "--out", out, "--metrics", "clip", *tiny(clip))
    row = read(out)["none"]
    assert set(row["scores"]) == {f"{__name__}:brightness", "clip"} and "clip" not in row["not_run"]
    assert main(["score", str(two / "none"), "--metrics", "fid", "--out", str(tmp_path / "none.json")]) == 2
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    some = tmp_path / "x.pth"
    some.write_bytes(b"")
    words = ["score", str(two / "none"), "--metrics", "fid", "--reference", str(two / "none")]
    main([*words, "--inception-weights", str(some), "--out", str(tmp_path / "none.json")])
    assert 'torch-fidelity is not installed: pip install ".[training]"' in capsys.readouterr().err


def test_wrong_files_are_refused_and_nothing_is_written(two, clip, reference, inception, tmp_path, capsys):
    out = tmp_path / "scores.json"
    fid = ("score", two, "--out", out, "--metrics", "fid", "--inception-weights")
    assert "no such file" in error_of(capsys, *fid, tmp_path / "nowhere.pth", "--reference", reference)
    assert "does not hold Inception's weights" in error_of(capsys, *fid, clip / "hps.pt", "--reference", reference)
    (tmp_path / "text.pth").write_text("<html>not found</html>", encoding="utf-8")
    assert "does not hold Inception" in error_of(capsys, *fid, tmp_path / "text.pth", "--reference", reference)
    (tmp_path / "empty").mkdir()
    for place, expected in (
        (tmp_path / "empty", "the folder has none"),
        (tmp_path / "nowhere", "no such folder"),
        (clip / "hps.pt", "holds no statistics"),
    ):
        assert expected in error_of(capsys, *fid, inception, "--reference", place)
    mixed = tmp_path / "mixed"
    shutil.copytree(reference, mixed)
    Image.new("RGB", (32, 40)).save(mixed / "z.png")
    assert "images of several sizes" in error_of(capsys, *fid, inception, "--reference", mixed, "--batch", 7)
    evaluate(
        "score",
        two / "none",
        "--metrics",
        "fid",
        "--inception-weights",
        inception,
        "--reference",
        mixed,
        "--side",
        32,
        "--out",
        tmp_path / "side.json",
    )
    assert read(tmp_path / "side.json")["none"]["scores"]["fid"]["side"] == 32
    (mixed / "z.png").write_bytes((mixed / "0.png").read_bytes()[:80])
    assert "z.png is damaged" in error_of(capsys, *fid, inception, "--reference", mixed, "--batch", 7)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    words = ("score", two, "--out", out, "--metrics", "clip", "--clip-model", f"local-dir:{clip}")
    assert "does not hold the weights of" in error_of(capsys, *words, "--clip-weights", tmp_path / "other.safetensors")
    words = ("score", two, "--out", out, "--metrics", "clip", "--clip-model", "ViT-Z", "--clip-weights", "x")
    assert "'ViT-Z' cannot be built" in error_of(capsys, *words)
    words = ("score", two, "--out", out, "--plugins", f"{__name__}:wrong", "--metrics", "clip", *tiny(clip))
    assert "expected 5 numbers, got 1" in error_of(capsys, *words)
    assert not out.exists()
    words = ("score", two, "--protocol", "paper", "--neighbours", "5")
    assert "--neighbours 5 (the paper's: 3)" in error_of(capsys, *words)


def test_earlier_scores_of_full_sets_are_kept(two, tmp_path, capsys):
    out = tmp_path / "scores.json"
    words = ("score", two, "--metrics", "--plugins", f"{__name__}:once", "--batch", 5, "--out", out)
    assert "it broke" in error_of(capsys, *words)
    assert [row["method"] for row in read(out).values()] == ["nasa:1"]


def test_pickscore_loads_its_model_class(two, tmp_path, monkeypatch):
    """A tiny model of PickScore's class."""
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = clip_tokenizer()
    tokens = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = CLIPConfig(
        text_config=small | tokens, vision_config=small | {"image_size": 32, "patch_size": 16}, projection_dim=8
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}', encoding="utf-8")
    monkeypatch.setenv("PICKSCORE_PATH", str(tmp_path))
    _pick_score.cache_clear()
    evaluate("score", two / "none", "--metrics", "--plugins", "pickscore", "--out", tmp_path / "s.json")
    value = read(tmp_path / "s.json")["none"]["scores"]["pickscore"]["value"]
    processor = CLIPImageProcessor.from_pretrained(tmp_path)
    expected = []
    for row in read_manifest(two / "none").images:
        with torch.no_grad():
            inputs = processor(images=read_image(two / "none" / row.file), return_tensors="pt")
            inputs |= tokenizer([row.prompt], return_tensors="pt")
            expected.append(model(**inputs).logits_per_image.item() / 100)
    assert value == pytest.approx(sum(expected) / 5, rel=1e-4)
    _pick_score.cache_clear()
