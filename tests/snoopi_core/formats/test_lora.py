import pytest
import torch
from safetensors.torch import load_file

from snoopi_core.formats.checkpoint import CheckpointError, OneStepRecipe
from snoopi_core.formats.lora import LoraMetadata, adapters_from_peft, find_lora_metadata, write_lora
from snoopi_core.formats.tensor_file import open_tensor_file

RECIPE = OneStepRecipe(timesteps=(999,), alpha_T=0.6, sigma_T=0.8)
PAIR = (torch.ones(2, 6), torch.ones(4, 2))


def lora_metadata(**changes):
    return LoraMetadata(title="student", prediction_type="epsilon", recipe=RECIPE, recommended_alpha=0.3, **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lora.safetensors"


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("unet", {"lora_unet_mid_block_to_q.lora_down.weight", "lora_unet_mid_block_to_q.lora_up.weight"}),
        ("pixart", {"transformer.mid_block.to_q.lora_A.weight", "transformer.mid_block.to_q.lora_B.weight"}),
    ],
)
def test_what_is_written(path, family, names):
    metadata = lora_metadata(family=family, base="a teacher")
    assert write_lora(path, metadata, {"mid_block.to_q": PAIR}, alpha=128) == path
    weights = load_file(path)
    alpha = next(iter(names)).rsplit(".lora_", 1)[0] + ".alpha"
    assert weights.keys() == names | {alpha}
    assert float(weights[alpha]) == 128 and all(weight.dtype == torch.float16 for weight in weights.values())
    assert find_lora_metadata(open_tensor_file(path)) == metadata
    assert metadata.role == "student_lora"


@pytest.mark.parametrize(
    ("adapters", "settings", "message"),
    [
        ({}, {}, "the LoRA has no adapters"),
        ({"a": (torch.ones(2, 6), torch.ones(4, 3))}, {}, r"a has down \(2, 6\) and up \(4, 3\), expected \(r, in\)"),
        ({"a": PAIR}, {"alpha": 0.0}, "alpha is 0.0, expected a positive number"),
        ({"a": PAIR}, {"alpha": float("nan")}, "alpha is nan"),
        ({"a": (PAIR[0] * 1e9, PAIR[1])}, {}, "not finite as torch.float16"),
    ],
)
def test_what_cannot_be_written(path, adapters, settings, message):
    with pytest.raises(CheckpointError, match=message):
        write_lora(path, lora_metadata(), adapters, **{"alpha": 1.0, **settings})
    assert not path.exists()


def test_a_recipe_outside_of_its_schedule():
    with pytest.raises(ValueError, match="starts at timestep 999, the schedule has 500 timesteps"):
        lora_metadata(schedule={"num_train_timesteps": 500})


def test_a_foreign_file_has_no_metadata_and_a_broken_one_is_reported(path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    assert find_lora_metadata(open_tensor_file(path)) is None
    save_file({"a": torch.zeros(1)}, path, metadata={"snoopi.format": "1", "snoopi.lora": "{}"})
    with pytest.raises(CheckpointError, match=r"its metadata is invalid .*title"):
        find_lora_metadata(open_tensor_file(path))
    save_file({"a": torch.zeros(1)}, path, metadata={"snoopi.format": "2", "snoopi.lora": "{}"})
    with pytest.raises(CheckpointError, match="has format 2, this version of SNOOPI reads up to 1"):
        find_lora_metadata(open_tensor_file(path))


def test_the_state_dict_of_peft():
    weights = {"base_model.model.x.to_q.lora_A.weight": PAIR[0], "x.to_q.lora_B.default.weight": PAIR[1]}
    assert adapters_from_peft(weights) == {"x.to_q": PAIR}
    with pytest.raises(ValueError, match="is not a LoRA weight of peft"):
        adapters_from_peft({"x.to_q.weight": PAIR[0]})
    with pytest.raises(ValueError, match=r"1 module\(s\) have only one of lora_A and lora_B, first x.to_q"):
        adapters_from_peft({"x.to_q.lora_A.weight": PAIR[0]})
