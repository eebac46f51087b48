"""A student exported as a LoRA gives the same results on its base as one merged file."""

import copy
import json

import numpy as np
import tomli_w
import torch
from evaluation import error_of, evaluate, pictures, pixels
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from tiny import tiny_backbone

from snoopi_core.formats.checkpoint import OneStepRecipe
from snoopi_core.formats.lora import LoraMetadata, adapters_from_peft, write_lora
from training.evaluate.alpha import write_alpha
from training.evaluate.generate.student import load_student, recommended_alpha
from training.models.backbone import fingerprint
from training.models.loading import load_backbone, merge_loras
from training.trainer.export import export_backbone

RECIPE = OneStepRecipe(timesteps=(749,), alpha_T=0.6, sigma_T=0.8)


def test_a_lora_student(tmp_path, capsys):
    backbone = tiny_backbone()
    base = export_backbone(tmp_path / "base.safetensors", backbone, title="base", role="teacher")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8.0, target_modules=["to_q", "to_v"], init_lora_weights=False)
        adapted = get_peft_model(copy.deepcopy(backbone.network), config)
    about = {"prediction_type": backbone.prediction_type, "schedule": backbone.schedule, "recipe": RECIPE}
    metadata = LoraMetadata(title="LoRA", base=str(base), recommended_alpha=0.7, **about)
    pairs = adapters_from_peft(get_peft_model_state_dict(adapted))
    lora = write_lora(tmp_path / "lora.safetensors", metadata, pairs, alpha=8.0)
    merged = adapted.merge_and_unload().state_dict()
    full = export_backbone(tmp_path / "full.safetensors", backbone, merged, title="full", role="student", recipe=RECIPE)

    words = ("--prompts", "shapes", "--limit", 3, "--cpu", "--negative", "blue", "--methods", "none", "nasa:0.7")
    evaluate("generate", lora, *words[:-1], "nasa", "--out", tmp_path / "lora")  # the LoRA's own alpha
    evaluate("generate", full, *words, "--out", tmp_path / "full")
    evaluate("generate", base, *words, "--timesteps", 749, "--out", tmp_path / "base")
    for name in ("none", "nasa-0.7"):
        one, other, plain = (
            np.stack([pixels(tmp_path / whose / name / file) for file in pictures(tmp_path / "full" / name)])
            for whose in ("lora", "full", "base")
        )
        assert np.abs(one - other).max() <= 2 < np.abs(plain - other).max()  # fp16 in different places
    write_alpha(lora, 0.4)
    assert recommended_alpha(str(lora)) == 0.4

    base.unlink()
    assert "its base is not there" in error_of(capsys, "generate", lora, *words, "--out", tmp_path / "x")
    assert "is not a LoRA of this project" in error_of(
        capsys, "generate", full, *words, "--base", lora, "--out", tmp_path / "x"
    )


def test_a_lora_of_a_base_with_loras(tmp_path, capsys, caplog):
    """They are found in the recipe of the run, and merged into the base, too; not twice, if they are known to be."""
    backbone, run = tiny_backbone(), tmp_path / "run"
    base = export_backbone(tmp_path / "base.safetensors", backbone, title="base", role="teacher")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=4.0, target_modules=["to_q", "to_v"], init_lora_weights=False)
        adapted = get_peft_model(copy.deepcopy(backbone.network), config)
    weights = get_peft_model_state_dict(adapted)
    style = tmp_path / "style.safetensors"
    save_file({key: weight.contiguous() for key, weight in weights.items()}, style)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4.0, "r": 4}))
    about = {"prediction_type": backbone.prediction_type, "schedule": backbone.schedule, "recipe": RECIPE}
    metadata = LoraMetadata(title="LoRA", base=base.name, base_loras=("style.safetensors:0.5",), **about)
    lora = write_lora(run / "export" / "student.safetensors", metadata, adapters_from_peft(weights), alpha=2.0)
    tree = {"teacher": {"path": str(base), "loras": [f"{style}:0.5"]}}
    (run / "recipe.toml").write_text(tomli_w.dumps(tree), encoding="utf-8")
    got = load_student(str(lora)).network.state_dict()
    merged = adapted.merge_and_unload().state_dict()  # half of it by the style, half by the student
    for name, weight in load_student(str(base)).network.state_dict().items():
        want = weight + (merged[name] - backbone.network.state_dict()[name])
        assert (got[name] - want).norm() <= 1e-3 * want.norm()
    load_student(str(lora), base=str(base))
    assert "If that has them already, name the model without them" in caplog.text
    with_style = load_backbone(str(base))
    merge_loras([f"{style}:0.5"], with_style)
    base = export_backbone(tmp_path / "merged.safetensors", with_style, title="with style", role="teacher")
    metadata = metadata.model_copy(update={"base_sha256": fingerprint(load_backbone(str(base)).network)})
    write_lora(lora, metadata, adapters_from_peft(weights), alpha=2.0)
    for name, weight in load_student(str(lora), base=str(base)).network.state_dict().items():
        assert (got[name] - weight).norm() <= 1e-3 * weight.norm()
    style.unlink()
    words = ("--prompts", "shapes", "--limit", 1, "--cpu", "--methods", "none", "--out", tmp_path / "x")
    assert "was trained on a model with the LoRA" in error_of(capsys, "generate", lora, *words)
