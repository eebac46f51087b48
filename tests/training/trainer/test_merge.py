"""SwiftBrush v2's merge, against peft's own merge of the LoRA into its base."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from tiny import tiny_backbone, tiny_pixart_backbone

from snoopi_core.formats.checkpoint import OneStepRecipe, read_checkpoint
from snoopi_core.formats.lora import LoraMetadata, adapters_from_peft, write_lora
from training.config import load_recipe
from training.merge import main
from training.models.loading import load_backbone
from training.trainer.export import export_backbone, provenance
from training.trainer.merge import merge

RANK, ALPHA = 4, 8.0
RECIPE = OneStepRecipe(timesteps=(999,), alpha_T=0.6, sigma_T=0.8)


def lora_of(path, backbone, targets, **changes):
    """(file, the network with the LoRA merged by peft)."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, init_lora_weights=False)
        adapted = get_peft_model(copy.deepcopy(backbone.network), config)
    settings = {
        "title": "B", "family": backbone.family.name, "prediction_type": backbone.prediction_type, "recipe": RECIPE,
        "schedule": backbone.schedule, "provenance": provenance("b" * 64, 5), **changes,
    }  # fmt: skip
    pairs = adapters_from_peft(get_peft_model_state_dict(adapted))
    return write_lora(path, LoraMetadata(**settings), pairs, alpha=ALPHA), adapted.merge_and_unload()


def student_of(path, backbone, **changes):
    settings = {
        "title": "A", "role": "student", "recipe": RECIPE, "provenance": provenance("a" * 64, 7),
        "recommended_alpha": 0.3, **changes,
    }  # fmt: skip
    return export_backbone(path, backbone, **settings)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The file of a model other than the student's."""
    backbone = tiny_backbone(seed=1)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    return backbone, export_backbone(path, backbone, title="base", role="teacher")


@pytest.fixture
def files(base, tmp_path):
    full = student_of(tmp_path / "full.safetensors", tiny_backbone())
    lora, _ = lora_of(tmp_path / "lora.safetensors", base[0], ["to_q", "to_v"], base=str(base[1]))
    return full, lora


@pytest.mark.parametrize("weight", [0.5, 0.25, 1.0, 0.0])
def test_the_mean_of_two_students(base, tmp_path, weight):
    backbone, base_path = base
    full = student_of(tmp_path / "full.safetensors", tiny_backbone())
    everything = [n for n, m in backbone.network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    lora, merged = lora_of(tmp_path / "lora.safetensors", backbone, everything)
    out = merge(full, lora, tmp_path / "out.safetensors", base=str(base_path), weight=weight)
    got = load_backbone(str(out)).network.state_dict()
    own = tiny_backbone().network.state_dict()
    for name, other in merged.state_dict().items():
        assert torch.allclose(got[name], weight * own[name] + (1 - weight) * other, atol=4e-3, rtol=2e-3), name
    assert not torch.allclose(merged.conv_in.weight, backbone.network.conv_in.weight, atol=1e-2), (
        "the LoRA must have a large effect"
    )


def test_pixart(tmp_path):
    backbone, other = tiny_pixart_backbone(), tiny_pixart_backbone(seed=1)
    full = student_of(tmp_path / "full.safetensors", backbone)
    base = export_backbone(tmp_path / "base.safetensors", other, title="base", role="teacher")
    lora, merged = lora_of(tmp_path / "lora.safetensors", other, ["to_q", "to_k", "to_v", "to_out.0"], base=str(base))
    out = read_checkpoint(merge(full, lora, tmp_path / "out.safetensors"))
    assert out.metadata.family == "pixart" and out.text_encoder is None
    expected = {key: (w + merged.state_dict()[key]) / 2 for key, w in backbone.network.state_dict().items()}
    single = backbone.family.to_single_file(expected, backbone.network.config)
    assert single.keys() == out.unet.keys()
    assert all(torch.allclose(out.unet[key].float(), w, atol=4e-3, rtol=2e-3) for key, w in single.items())


def test_the_rest_is_the_full_students(files, tmp_path, capsys):
    full, lora = files
    out = tmp_path / "out.safetensors"
    assert main([str(full), str(lora), "--out", str(out), "--weight", "0.75"]) == 0
    assert str(out) in capsys.readouterr().out
    before, after = read_checkpoint(full), read_checkpoint(out)
    assert all(torch.equal(after.vae[key], weight) for key, weight in before.vae.items())
    assert all(torch.equal(after.text_encoder[key], weight) for key, weight in before.text_encoder.items())
    changed = {"title", "provenance"}
    assert after.metadata.model_dump(exclude=changed) == before.metadata.model_dump(exclude=changed)
    assert after.metadata.title == "A + B"
    notes = f"merged: 0.75 x 'A' (step 7, recipe {'a' * 64}) + 0.25 x 'B' (step 5, recipe {'b' * 64})"
    assert after.metadata.provenance.notes == notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": OneStepRecipe(timesteps=(400,), alpha_T=0.6, sigma_T=0.8)}, r"timesteps is \(999,\) and \(400,\)"),
        ({"recipe": OneStepRecipe(timesteps=(999,), alpha_T=0.8, sigma_T=0.6)}, "alpha_T is 0.6 and 0.8; sigma_T is"),
        ({"recipe": None}, "alpha_T is 0.6 and None"),
        ({"prediction_type": "v_prediction"}, "prediction_type is epsilon and v_prediction"),
    ],
)
def test_students_of_different_kinds(base, tmp_path, changes, message):
    full = student_of(tmp_path / "full.safetensors", tiny_backbone())
    lora, _ = lora_of(tmp_path / "lora.safetensors", base[0], ["to_q"], base=str(base[1]), **changes)
    with pytest.raises(ValueError, match=rf"are not the same kind of student: {message}"):
        merge(full, lora, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_base_that_does_not_fit_or_is_not_there(files, base, tmp_path, capsys):
    full, lora = files
    other = tiny_backbone("v_prediction")
    export_backbone(tmp_path / "v.safetensors", other, title="v", role="teacher")
    wanted = [str(full), str(lora), "--out", str(tmp_path / "out.safetensors"), "--base"]
    assert main([*wanted, str(tmp_path / "v.safetensors")]) == 2
    assert "does not fit: prediction_type is v_prediction, the full student's epsilon" in capsys.readouterr().err
    assert main([*wanted, str(tmp_path / "nowhere")]) == 2
    assert "give its path with --base" in capsys.readouterr().err
    nameless, _ = lora_of(tmp_path / "nameless.safetensors", base[0], ["to_q"])
    with pytest.raises(ValueError, match=r"does not name the model that it was trained on; give it with --base"):
        merge(full, nameless, tmp_path / "out.safetensors")


def test_a_base_with_an_absolute_path_is_found_by_the_recipe_of_the_run(base, tmp_path, monkeypatch, capsys):
    """The exported LoRA has the last part of the path alone, since paths are private."""
    monkeypatch.chdir(tmp_path)
    full = student_of(tmp_path / "full.safetensors", tiny_backbone())
    run = tmp_path / "run"
    (run / "export").mkdir(parents=True)
    lora, _ = lora_of(run / "export" / "student.safetensors", base[0], ["to_q"], base=base[1].name)
    wanted = [str(full), str(lora), "--out", str(tmp_path / "out.safetensors")]
    assert main(wanted) == 2
    message = capsys.readouterr().err
    assert "is a LoRA of 'base.safetensors', and its base is not there: looked for" in message
    assert "and for the run's recipe.toml two folders above the LoRA; give its path with --base" in message
    recipe = load_recipe("shapes", [f"teacher.path={base[1]}"])
    (run / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert main(wanted) == 0
    (run / "recipe.toml").write_text(
        recipe.to_toml().replace("base.safetensors", "other.safetensors"), encoding="utf-8"
    )
    with pytest.raises(FileNotFoundError, match="its base is not there"):
        merge(full, lora, tmp_path / "again.safetensors")


def test_other_files_in_their_place(files, base, tmp_path):
    full, lora = files
    out = tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match=r"full.safetensors is not a LoRA made by `python -m training.export`"):
        merge(full, full, out)
    with pytest.raises(
        ValueError, match=r"lora.safetensors is a LoRA; expected the export of a student trained in full"
    ):
        merge(lora, lora, out)
    with pytest.raises(ValueError, match=r"not the same kind of student: alpha_T is None and 0.6"):
        merge(base[1], lora, out)
    with pytest.raises(ValueError, match="weight is 2, expected a number from 0 to 1"):
        merge(full, lora, out, weight=2)


def test_a_lora_of_other_modules(base, tmp_path):
    full = student_of(tmp_path / "full.safetensors", tiny_backbone())
    metadata = LoraMetadata(title="B", prediction_type="epsilon", recipe=RECIPE, base=str(base[1]))
    pair = (torch.ones(2, 6), torch.ones(4, 2))
    strange = write_lora(tmp_path / "strange.safetensors", metadata, {"nowhere.to_q": pair}, alpha=1)
    with pytest.raises(ValueError, match=r"3 weight\(s\) have no place in the network, first lora_unet_nowhere"):
        merge(full, strange, tmp_path / "out.safetensors")
    small = write_lora(tmp_path / "small.safetensors", metadata, {"conv_in": pair}, alpha=1)
    with pytest.raises(ValueError, match="its update of conv_in does not fit"):
        merge(full, small, tmp_path / "out.safetensors")
