"""LoRAs merged into a teacher: the weights are those of peft, and what cannot be merged is refused."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from loras import ALPHA, RANK, STYLES, kohya, lora_metadata, renamed, with_adapters
from published import published, save_folder
from reference import relative_error
from safetensors.torch import save_file
from tiny import tiny_backbone, tiny_pixart_backbone, tiny_sdxl_backbone

from snoopi_core.formats.layouts import text_encoder_rename, unet_rename
from snoopi_core.formats.lora import adapters_from_peft, write_lora
from training.config import Teacher
from training.models.loading import describe_encoder, load_teacher, merge_loras
from training.models.loading.build import without_weights

MAKERS = {"unet": tiny_backbone, "sdxl": tiny_sdxl_backbone, "pixart": tiny_pixart_backbone}


def write(path, tensors, header=None):
    save_file({name: weight.contiguous() for name, weight in tensors.items()}, path, metadata=header or {})
    return str(path)


def at(base, merged, strength):
    """The weights at a strength, by those at 0 and at 1."""
    one = merged.state_dict()
    return {name: torch.lerp(weight, one[name], strength) for name, weight in base.state_dict().items()}


def assert_weights(network, expected, tolerance=1e-6):
    got = network.state_dict()
    assert got.keys() == expected.keys()
    wrong = [name for name in got if relative_error(got[name], expected[name]) > tolerance]
    assert not wrong, wrong[:3]


def single_file_names(weights, network):
    """As kohya's scripts name the modules of SDXL: after the single file's names."""
    rename = unet_rename(network.config)
    modules = {key.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for key in weights}
    names = {m.replace(".", "_"): rename(f"{m}.weight").removesuffix(".weight").replace(".", "_") for m in modules}
    out = {}
    for key, weight in kohya(weights).items():
        module, _, end = key.removeprefix("lora_unet_").partition(".")
        out[f"lora_unet_{names[module]}.{end}"] = weight
    return out


def test_a_file_of_peft_itself_and_its_settings(tmp_path):
    backbone = tiny_backbone()
    merged, weights = with_adapters(backbone.network)
    settings = {"lora_alpha": ALPHA, "r": RANK, "use_rslora": False, "alpha_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    merge_loras([write(tmp_path / "adapter_model.safetensors", weights)], backbone)
    assert_weights(backbone.network, merged.state_dict())


def test_what_only_changes_text_encoders_changes_nothing_without_them(tmp_path, caplog):
    backbone = tiny_sdxl_backbone()
    before = copy.deepcopy(backbone.network.state_dict())
    backbone = replace(backbone, text_encoder=None)
    merge_loras([write(tmp_path / "a.safetensors", {"lora_te1_a.lora_down.weight": torch.zeros(1, 2)})], backbone)
    assert_weights(backbone.network, before, 0)
    assert "load this LoRA for CLIP, too" in caplog.text


@pytest.mark.parametrize("style", STYLES)
def test_the_styles_of_published_files(tmp_path, style):
    backbone = tiny_backbone()
    before = copy.deepcopy(backbone.network)
    merged, weights = with_adapters(backbone.network)
    path = write(tmp_path / "a.safetensors", *STYLES[style](weights))
    merge_loras([f"{path}:-0.5"], backbone)
    assert_weights(backbone.network, at(before, merged, -0.5))


@pytest.mark.parametrize("family", MAKERS)
def test_each_family_and_a_stack(tmp_path, family):
    backbone = MAKERS[family]()
    before = copy.deepcopy(backbone.network)
    merged, weights = with_adapters(before)
    first = kohya(weights) if family == "unet" else renamed(weights, "transformer." if family == "pixart" else "unet.")
    second = single_file_names(weights, before) if family == "sdxl" else first
    paths = [write(tmp_path / f"{n}.safetensors", tensors) for n, tensors in enumerate((first, second))]
    merge_loras([f"{paths[0]}:0.5", paths[1]], backbone)
    one = RANK / ALPHA if family != "unet" else 1.0  # without an alpha the update is not scaled
    two = one if family == "pixart" else 1.0
    assert_weights(backbone.network, at(before, merged, 0.5 * one + two), 1e-5)


def test_convolutions_of_other_kernels(tmp_path):
    backbone = tiny_backbone()
    before = copy.deepcopy(backbone.network)
    merged, weights = with_adapters(before, ["conv1", "conv_shortcut", "proj_in"])
    merge_loras([write(tmp_path / "a.safetensors", kohya(weights))], backbone)
    assert_weights(backbone.network, merged.state_dict())


def text_lora(encoder, prefix):
    name = "text_model.encoder.layers.1.self_attn.q_proj"
    weight = next(w for key, w in encoder.state_dict().items() if text_encoder_rename(key) == f"{name}.weight")
    up, down = torch.randn(len(weight), 2), torch.randn(2, weight.shape[1])
    if prefix.startswith("lora"):
        return (
            weight,
            up @ down,
            {f"{prefix}{name.replace('.', '_')}.lora_{k}.weight": w for k, w in (("up", up), ("down", down))},
        )
    return weight, up @ down, {f"{prefix}{name}.lora_{k}.weight": w for k, w in (("B", up), ("A", down))}


@pytest.mark.parametrize("style", [("lora_te1_", "lora_te2_"), ("text_encoder.", "text_encoder_2.")])
def test_both_text_encoders_of_sdxl(tmp_path, style):
    backbone = tiny_sdxl_backbone()
    pair, tensors, expected = backbone.text_encoder, {}, []
    for encoder, prefix in zip((pair.first, pair.second), style, strict=True):
        weight, update, found = text_lora(encoder, prefix)
        tensors |= found
        expected.append((weight, weight.clone() + 0.5 * update))
    merge_loras([write(tmp_path / "a.safetensors", tensors) + ":0.5"], backbone)
    assert all(relative_error(weight, want) <= 1e-6 for weight, want in expected)


class TestATeacherOfARecipe:
    def test_it_is_merged_and_described(self, tmp_path):
        folder = save_folder(tmp_path / "teacher", "sdxl")
        merged, weights = with_adapters(published("sdxl")["network"])
        network = write(tmp_path / "network.safetensors", kohya(weights))
        text = text_lora(published("sdxl")["text_encoder"].first, "lora_te1_")[2]
        both = write(tmp_path / "both.safetensors", kohya(weights) | text)
        sections = {
            name: Teacher(path=folder, loras=loras)
            for name, loras in {"plain": (), "network": (network,), "both": (both,), "weaker": (f"{both}:0.5",)}.items()
        }
        about = {name: describe_encoder(section, load_teacher(section))["loras"] for name, section in sections.items()}
        assert about["plain"] is None and about["network"] is None  # embeddings of prompts are the same
        assert len({about["both"], about["weaker"], None}) == 3
        assert_weights(load_teacher(sections["network"]).network, merged.state_dict())
        # a run with cached embeddings has no text encoder: the LoRA's part for it is left out
        assert_weights(load_teacher(sections["both"], t5=None).network, merged.state_dict())

    def test_a_dry_run_finds_a_misfit_without_reading_weights(self, tmp_path):
        folder = save_folder(tmp_path / "teacher", "sd15")
        _, weights = with_adapters(published("sdxl")["network"])
        good = with_adapters(published("sd15")["network"])[1]
        with without_weights():
            assert load_teacher(Teacher(path=folder, loras=(write(tmp_path / "g.safetensors", kohya(good)),)))
            with pytest.raises(ValueError, match=r"x.safetensors: .* which do not fit the teacher's weight"):
                load_teacher(Teacher(path=folder, loras=(write(tmp_path / "x.safetensors", kohya(weights)),)))


class TestRefused:
    @pytest.fixture(scope="class")
    def weights(self):
        return with_adapters(tiny_backbone().network)[1]

    def refused(self, path, message):
        with pytest.raises(ValueError, match=message) as caught:
            merge_loras([path], tiny_backbone())
        assert str(caught.value).startswith(path)

    def test_keys_without_a_weight(self, tmp_path, weights):
        more = {"lora_unet_conv_in.hada_w1_a": torch.zeros(2, 2)}
        self.refused(write(tmp_path / "a.safetensors", kohya(weights) | more), "1 of its keys belong to no weight")

    def test_shapes_of_another_model(self, tmp_path, weights):
        wider = {k: torch.zeros(w.shape[0] * 2, w.shape[1]) if "lora_up" in k else w for k, w in kohya(weights).items()}
        self.refused(write(tmp_path / "a.safetensors", wider), "do not fit the teacher's weight")

    def test_other_kinds_named_in_the_header(self, tmp_path, weights):
        header = {"lora_adapter_metadata": json.dumps({"unet.use_dora": True})}
        path = write(tmp_path / "a.safetensors", renamed(weights, "unet."), header)
        self.refused(path, "have unet.use_dora. Only")

    def test_pefts_own_file_without_its_settings(self, tmp_path, weights):
        self.refused(write(tmp_path / "a.safetensors", weights), "lora_alpha.* is in adapter_config.json")

    def test_a_student_of_this_trainer(self, tmp_path, weights):
        path = write_lora(tmp_path / "a.safetensors", lora_metadata(), adapters_from_peft(weights), alpha=ALPHA)
        self.refused(str(path), "it is a student of this trainer: a teacher needs many steps")

    def test_an_empty_file(self, tmp_path):
        self.refused(write(tmp_path / "a.safetensors", {"lora_te_x": torch.zeros(1)}), "belong to no weight")
