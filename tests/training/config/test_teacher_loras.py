"""LoRAs of a recipe's teacher: files and strengths."""

import pytest

from training.config import RecipeError, load_recipe, split_strength


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("folder/a.safetensors:0.8", ("folder/a.safetensors", 0.8)),
        ("C:/loras/a.safetensors", ("C:/loras/a.safetensors", 1.0)),
        ("C:/loras/a.safetensors:-1", ("C:/loras/a.safetensors", -1.0)),
    ],
)
def test_a_path_and_its_strength(lora, expected):
    assert split_strength(lora) == expected
    assert load_recipe("shapes", [f"teacher.loras={lora}"]).teacher.loras == (lora,)
    assert load_recipe("shapes", [f'teacher.loras=["{lora}", "{lora}"]']).teacher.loras == (lora, lora)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("a.safetensors:strong", "the strength of 'a.safetensors:strong' is 'strong', expected a number other than 0"),
        ("a.safetensors:0", "is '0', expected a number other than 0"),
        ("a.pt", "'a.pt' is not the name of a .safetensors file, with or without :STRENGTH after it"),
    ],
)
def test_what_is_refused(lora, message):
    with pytest.raises(RecipeError, match=r"teacher\.loras") as caught:
        load_recipe("shapes", [f"teacher.loras={lora}"])
    assert message in str(caught.value)


def test_a_missing_file():
    with pytest.raises(RecipeError, match=r"teacher\.loras: no file at 'none/a\.safetensors'"):
        load_recipe("shapes", ["teacher.loras=none/a.safetensors:0.8"], check_files=True)
