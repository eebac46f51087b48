"""Teachers from every kind of file: the loaded parts equal the saved ones."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from published import (
    KINDS,
    NETWORK,
    clip_weights,
    open_clip_states,
    published,
    save_folder,
    single_file_weights,
    write,
)
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from snoopi_core.formats.checkpoint import Checkpoint, Metadata, OneStepRecipe, Schedule, write_checkpoint
from snoopi_core.formats.joined_layouts import pixart_to_single_file
from training.models.loading import load_backbone, load_network

PROMPT = "A red ring, isn't it?"
PIXART_SCHEDULE = Schedule(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_folder(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def load_parts(path, **places):
    return vars(load_backbone(path, **places))


def same(got, expected):
    got, expected = got.state_dict(), expected.state_dict()
    return got.keys() == expected.keys() and all(torch.equal(got[key].float(), expected[key]) for key in got)


def ids(tokenizer, prompt=PROMPT):
    return tokenizer([prompt], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


class TestFolders:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_part_equals_the_saved_one(self, folders, kind):
        parts, original = load_parts(folders[kind], t5=torch.float32), published(kind)
        for name in ("network", "text_encoder", "vae"):
            assert same(parts[name], original[name])
            assert not parts[name].training
            assert {(w.dtype, w.requires_grad) for w in parts[name].parameters()} == {(torch.float32, False)}
        pair = (parts["tokenizer"], original["tokenizer"])
        for got, expected in zip(*pair, strict=True) if kind == "sdxl" else [pair]:
            assert torch.equal(ids(got), ids(expected))
        assert parts["family"].name == (kind if kind in ("sdxl", "pixart") else "unet")
        assert parts["schedule"] == (PIXART_SCHEDULE if kind == "pixart" else Schedule())
        assert (parts["prediction_type"], parts["recipe"]) == ("epsilon", None)

    def test_half_precision_is_loaded_as_single(self, tmp_path):
        folder = save_folder(tmp_path, "sd15")
        path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
        save_file({key: weight.half() for key, weight in load_file(path).items()}, path)
        network = load_parts(folder)["network"]
        assert {w.dtype for w in network.parameters()} == {torch.float32}
        assert torch.equal(network.conv_in.weight, published("sd15")["network"].conv_in.weight.half().float())

    def test_t5_is_loaded_in_bf16_or_not_at_all(self, folders):
        parts = load_parts(folders["pixart"])
        assert parts["text_encoder"].dtype == torch.bfloat16 and parts["network"].dtype == torch.float32
        parts = load_parts(folders["pixart"], t5=None)
        assert parts["text_encoder"] is None and parts["tokenizer"] is None

    def test_text_encoder_and_vae_from_another_folder(self, folders, tmp_path):
        """From a pipeline's folder, or from a folder with only this part."""
        other = {"vae": published("sd21")["vae"], "text_encoder": published("sd21")["text_encoder"]}
        folder = Path(save_folder(tmp_path / "a", "sd15", **other))
        for text, vae in ((folder, folder), (folder / "text_encoder", folder / "vae")):
            for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
                if (folder / "tokenizer" / name).is_file() and text != folder:
                    (text / name).write_bytes((folder / "tokenizer" / name).read_bytes())
            parts = load_parts(folders["sd15"], text_encoder=str(text), vae=str(vae))
            assert same(parts["network"], published("sd15")["network"])
            assert same(parts["text_encoder"], other["text_encoder"]) and same(parts["vae"], other["vae"])
            assert torch.equal(ids(parts["tokenizer"]), ids(published("sd15")["tokenizer"]))

    def test_pixarts_former_class_name(self, folders, tmp_path):
        folder = Path(save_folder(tmp_path, "pixart"))
        path = folder / "transformer" / "config.json"
        config = json.loads(path.read_text())
        config["_class_name"] = "Transformer2DModel"
        del config["use_additional_conditions"], config["interpolation_scale"]
        path.write_text(json.dumps(config))
        assert same(load_parts(str(folder), t5=None)["network"], published("pixart")["network"])

    def test_t5_vocabulary_as_published(self, tmp_path):
        """Only a sentencepiece file; the one trained here has its own vocabulary."""
        folder = Path(save_folder(tmp_path, "pixart"))
        for path in (folder / "tokenizer").iterdir():
            path.unlink()
        sentences = iter(["a red ring on the left", "a photo of a dog, a cat", "a blue triangle above a wall"] * 9)
        with open(folder / "tokenizer" / "spiece.model", "wb") as file:
            SentencePieceTrainer.train(
                sentence_iterator=sentences, model_writer=file, vocab_size=30, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
                minloglevel=2,
            )  # fmt: skip
        (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 0}))
        tokenizer = load_parts(str(folder))["tokenizer"]
        pieces = SentencePieceProcessor(str(folder / "tokenizer" / "spiece.model"))
        assert tokenizer("a red ring").input_ids == [*pieces.encode("a red ring"), pieces.eos_id()]

    def test_model_from_the_hub_cache(self, folders, tmp_path, monkeypatch):
        """Offline, with a model that was downloaded before; tests never access the hub."""
        snapshot = tmp_path / "models--tiny--sd21" / "snapshots" / "0123abc"
        snapshot.parent.mkdir(parents=True)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text("0123abc")
        snapshot.symlink_to(folders["sd21"])
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        assert same(load_parts("tiny/sd21")["network"], published("sd21")["network"])


class TestSingleFiles:
    @pytest.mark.parametrize("kind", ["sd15", "sd21"])
    def test_stable_diffusion(self, tmp_path, kind):
        parts = load_parts(write(tmp_path / "model.safetensors", single_file_weights(kind)))
        original = published(kind)
        for name in ("network", "vae"):
            assert same(parts[name], original[name])
            assert {w.dtype for w in parts[name].parameters()} == {torch.float32}
        heads = {name: m.heads for name, m in original["network"].named_modules() if hasattr(m, "heads")}
        assert heads == {name: m.heads for name, m in parts["network"].named_modules() if hasattr(m, "heads")}
        x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 64)
        got, expected = (p["network"](x, 500, text).sample for p in (parts, original))
        # the same weights at other addresses: some processors take other paths there
        assert (got - expected).norm() <= 1e-6 * expected.norm()
        tokens = ids(parts["tokenizer"])
        assert torch.equal(tokens, ids(original["tokenizer"]))
        own = original["text_encoder"](tokens).last_hidden_state
        expected = own if kind == "sd15" else open_clip_states(tokens)
        assert torch.allclose(parts["text_encoder"](tokens).last_hidden_state, expected, atol=1e-5)

    @pytest.mark.parametrize("kind", ["sd15", "sd21"])
    def test_the_file_loads_as_by_diffusers(self, tmp_path, folders, kind):
        path = write(tmp_path / "model.safetensors", single_file_weights(kind))
        pipeline = StableDiffusionPipeline.from_single_file(path, config=folders[kind], local_files_only=True)
        parts = load_parts(path)
        assert same(parts["network"], pipeline.unet) and same(parts["vae"], pipeline.vae)
        assert same(parts["text_encoder"], pipeline.text_encoder)

    def test_stable_diffusion_2_with_transformers_names(self, tmp_path):
        weights = {k: w for k, w in single_file_weights("sd21").items() if not k.startswith("cond_stage_model.")}
        text_encoder = published("sd21")["text_encoder"]
        parts = load_parts(write(tmp_path / "model.safetensors", weights | clip_weights(text_encoder)))
        tokens = ids(parts["tokenizer"])
        assert torch.equal(tokens, ids(published("sd21")["tokenizer"]))
        assert torch.equal(*(e(tokens).last_hidden_state for e in (parts["text_encoder"], text_encoder)))

    def test_extra_tensors_of_published_files_are_ignored(self, tmp_path):
        weights = single_file_weights("sd15") | {
            "alphas_cumprod": published("sd15")["scheduler"].alphas_cumprod.half(),
            "model_ema.decay": torch.zeros(()), "cond_stage_model.logit_scale": torch.zeros(()),
            "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77),
        }  # fmt: skip
        weights = {key: weight.half() if weight.is_floating_point() else weight for key, weight in weights.items()}
        parts = load_parts(write(tmp_path / "model.safetensors", weights))
        for part in ("network", "text_encoder", "vae"):
            assert {weight.dtype for weight in parts[part].parameters()} == {torch.float32}
            expected = published("sd15")[part].state_dict()
            assert all(torch.equal(w, expected[key].half().float()) for key, w in parts[part].state_dict().items())

    @pytest.mark.parametrize("prefix", ["", NETWORK])
    def test_pixart(self, tmp_path, folders, prefix):
        weights = single_file_weights("pixart") | {
            "pos_embed": torch.zeros(1, 1024, 72), "y_embedder.y_embedding": torch.zeros(120, 64)
        }  # fmt: skip
        path = write(tmp_path / "model.safetensors", {prefix + key: weight for key, weight in weights.items()})
        parts = load_parts(path, text_encoder=folders["pixart"], vae=folders["pixart"])
        assert same(parts["network"], published("pixart")["network"])
        assert parts["schedule"] == PIXART_SCHEDULE and parts["family"].name == "pixart"
        states = torch.randn(1, 5, 64)
        x, sizes = torch.randn(1, 4, 8, 8), {"resolution": None, "aspect_ratio": None}
        got, expected = (
            p["network"](x, states, torch.tensor([400]), added_cond_kwargs=sizes).sample
            for p in (parts, published("pixart"))
        )
        # the same weights at other addresses: some processors take other paths there
        assert (got - expected).norm() <= 1e-6 * expected.norm()

    def test_pixart_transformer_saved_by_diffusers(self, tmp_path, folders):
        path = write(tmp_path / "model.safetensors", published("pixart")["network"].state_dict())
        parts = load_parts(path, text_encoder=folders["pixart"], vae=folders["pixart"])
        assert same(parts["network"], published("pixart")["network"])

    @pytest.mark.parametrize(
        ("kind", "header", "marker", "expected"),
        [
            ("sd21", {}, (), "epsilon"),
            ("sd21", {"modelspec.prediction_type": "v"}, (), "v_prediction"),
            ("sd21", {"modelspec.prediction_type": "epsilon"}, (), "epsilon"),
            ("sd21", {}, ("v_pred",), "v_prediction"),
            ("sd15", {}, (), "epsilon"),
        ],
    )
    def test_prediction_type(self, tmp_path, caplog, kind, header, marker, expected):
        weights = single_file_weights(kind) | {name: torch.zeros(0) for name in marker}
        with caplog.at_level(logging.WARNING):
            parts = load_parts(write(tmp_path / "model.safetensors", weights, **header))
        assert parts["prediction_type"] == expected
        assert ("does not state its prediction type" in caplog.text) == (kind == "sd21" and not header and not marker)


class TestOurFiles:
    def test_a_pixart_student(self, tmp_path, folders):
        network = published("pixart")["network"]
        recipe = OneStepRecipe(timesteps=(400,), alpha_T=0.6, sigma_T=0.8)
        metadata = Metadata(
            title="t", role="student", family="pixart", prediction_type="epsilon", latent_scale=0.18215,
            unet=dict(network.config), recipe=recipe, schedule=PIXART_SCHEDULE,
        )  # fmt: skip
        checkpoint = Checkpoint(metadata=metadata, unet=pixart_to_single_file(network.state_dict()))
        path = str(write_checkpoint(tmp_path / "student.safetensors", checkpoint, dtype=torch.float32))
        with pytest.raises(ValueError, match=r"no text_encoder and no vae; .* teacher.text_encoder and teacher.vae in"):
            load_parts(path)
        parts = load_parts(path, text_encoder=folders["pixart"], vae=folders["pixart"])
        assert same(parts["network"], network) and parts["recipe"] == recipe
        assert parts["schedule"] == PIXART_SCHEDULE


class TestNetworks:
    """Another checkpoint to start the student from."""

    def teacher(self, kind="sd15", **changes):
        family = SimpleNamespace(name=kind if kind in ("sdxl", "pixart") else "unet")
        return SimpleNamespace(family=family, network=published(kind)["network"], prediction_type="epsilon", **changes)

    @pytest.mark.parametrize("kind", KINDS)
    def test_from_a_single_file(self, tmp_path, kind):
        path = write(tmp_path / "model.safetensors", single_file_weights(kind))
        weights = load_network(path, self.teacher(kind))
        expected = published(kind)["network"].state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)

    def test_from_a_folder_with_only_the_network(self, tmp_path):
        folder = save_folder(tmp_path, "sd21")
        for part in ("vae", "text_encoder", "tokenizer"):
            shutil.rmtree(tmp_path / part)
        assert load_network(folder, self.teacher("sd21"))

    def test_differences_from_the_teacher_are_listed(self, tmp_path, folders):
        with pytest.raises(ValueError, match=r"does not fit: family is pixart, the teacher's unet$"):
            load_network(folders["pixart"], self.teacher())
        with pytest.raises(ValueError, match=r"does not fit: attention_head_dim is \[1, 2\], the teacher's 8"):
            load_network(folders["sd21"], self.teacher())
        network = UNet2DConditionModel.from_config({**published("sd15")["network"].config, "attention_head_dim": 4})
        save_folder(tmp_path, "sd15", network=network)
        with pytest.raises(ValueError, match=r"does not fit: attention_head_dim is 4, the teacher's 8$"):
            load_network(str(tmp_path), self.teacher())
        scheduler = DDIMScheduler.from_config(published("sd15")["scheduler"].config, prediction_type="v_prediction")
        save_folder(tmp_path / "v", "sd15", scheduler=scheduler)
        with pytest.raises(ValueError, match="prediction_type is v_prediction, the teacher's epsilon"):
            load_network(str(tmp_path / "v"), self.teacher())
