"""The shipped recipes: the paper's Table 6 cell by cell, and layers that change only what they should."""

import tomllib

import pytest

from training.config import Recipe, RecipeError, load_recipe, recipe_names
from training.config.layers import _settings

BACKBONES = ["sd15", "sd21", "pixart"]
LARGE = ["sd15_40gb", "sd21_40gb"]
SMALL = [f"{backbone}_{size}" for backbone in BACKBONES for size in ("24gb", "12gb")]
LORAS = [
    f"{kind}{card}" for kind in ("sdxl_lora_1step", "sdxl_lora_4step", "sd15_lora_4step") for card in ("", "_12gb")
]
LAYERS = {  # all settings of each layer
    "swiftbrush": {"guidance.teacher_kappa": 4.5, "guidance.lora_kappa": 4.5},
    "dmd2trick": {
        "guidance.teacher_kappa": 4.5,
        "guidance.lora_kappa": 4.5,
        "lora.updates": 5,
        "lora.batches": "fresh",
    },
    "table2_neither": {"guidance.teacher_kappa": 4.5, "guidance.lora_kappa": 4.5},
    "table2_teacher": {"guidance.lora_kappa": 4.5},
    "table2_lora": {"guidance.teacher_kappa": 4.5},
    "table2_both": {},
    "nasa_t": {"student.nasa_alpha_max": 1.0},
}
PROMPTS = "prompts.source=prompts.txt"  # settings that the recipes leave to the user

TABLE_6 = """
                              sd15   sd21   pixart
loop.batch_size               64     64     64
loop.iterations               60000  40000  60000
loop.precision                bf16   bf16   bf16
guidance.kappa_min            0.5    0.5    0.5
guidance.kappa_max            4.0    4.0    3.0
clip.weight                   0.1    0.1    0.1
clip.margin                   0.37   0.37   0.37
student.learning_rate         1e-06  1e-06  1e-06
lora.learning_rate            0.001  0.001  0.001
lora.rank                     64     64     64
lora.scaling                  128.0  128.0  128.0
"""
HEAD, *ROWS = TABLE_6.strip().splitlines()
CELLS = [
    (backbone, key, cell)
    for key, *cells in map(str.split, ROWS)
    for backbone, cell in zip(HEAD.split(), cells, strict=True)
]


def flat(recipe):
    """Settings by their full names, without the output paths."""
    sections = recipe.model_dump(exclude={"output", "seed"})
    return {f"{section}.{key}": value for section, settings in sections.items() for key, value in settings.items()}


def changed(recipe, base):
    before = flat(base)
    return {key: value for key, value in flat(recipe).items() if value != before[key]}


@pytest.mark.parametrize(("backbone", "key", "cell"), CELLS)
def test_table_6(backbone, key, cell):
    assert str(flat(load_recipe(backbone, [PROMPTS]))[key]) == cell


def test_defaults_are_table_6_for_sd15():
    teacher = {"path": "owner/name"}
    defaults = flat(Recipe(teacher=teacher, prompts={"source": "prompts.txt"}))
    assert {key: str(defaults[key]) for backbone, key, _ in CELLS if backbone == "sd15"} == {
        key: cell for backbone, key, cell in CELLS if backbone == "sd15"
    }


@pytest.mark.parametrize("backbone", BACKBONES)
def test_settings_missing_in_the_paper_equal_the_public_code(backbone):
    recipe = load_recipe(backbone, [PROMPTS])
    assert (recipe.loop.t_min, recipe.loop.t_max) == (20, 980)
    assert (recipe.loop.gradient_clip, recipe.loop.weight_decay, recipe.loop.gradient_checkpointing) == (
        1.0,
        1e-4,
        True,
    )
    assert (recipe.lora.targets, recipe.lora.condition_dropout, recipe.lora.updates) == ("attention_qv", 0.1, 1)
    assert (recipe.guidance.teacher_kappa, recipe.guidance.lora_kappa) == (None, None)
    assert (recipe.clip.model, recipe.clip.share, recipe.clip.decoder) == ("ViT-B-32", 0.5, "madebyollin/taesd")
    assert recipe.student.init == {"sd21": "stabilityai/sd-turbo"}.get(backbone, "")
    assert recipe.student.timestep == {"pixart": 400}.get(backbone, 999)
    assert recipe.output.recommended_alpha == {"sd15": 0.04, "sd21": 0.3, "pixart": 0.8}[backbone]


@pytest.mark.parametrize("name", BACKBONES + SMALL + LARGE + LORAS)
def test_prompts_must_be_given(name):
    with pytest.raises(
        RecipeError, match=r"1 problem\(s\)\n  - prompts.source is required: give prompts.source= a file"
    ):
        load_recipe(name)


@pytest.mark.parametrize("name", SMALL)
def test_low_memory_recipes_keep_batch_losses_and_guidance(name):
    """Batch, losses and guidance are Table 6's; only the way of computing may change."""
    backbone = name.partition("_")[0]
    base, recipe = load_recipe(backbone, [PROMPTS]), load_recipe(name, [PROMPTS])
    assert recipe.loop.batch_size == base.loop.batch_size and base.loop.batch_size % recipe.loop.micro_batch == 0
    assert changed(recipe, base).keys() <= {
        "loop.micro_batch",
        "loop.optimizer",
        "student.train",
        "student.init",
        "student.learning_rate",
        "student.lora_rank",
        "student.lora_scaling",
        "prompts.text_cache",
    }


@pytest.mark.parametrize("name", LARGE)
def test_recipes_for_large_cards_recompute_nothing_and_are_otherwise_the_same(name):
    base, recipe = load_recipe(name.partition("_")[0], [PROMPTS]), load_recipe(name, [PROMPTS])
    assert changed(recipe, base) == {"loop.gradient_checkpointing": False}


@pytest.mark.parametrize("backbone", [*BACKBONES, "shapes"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_change_only_the_listed_settings(backbone, layer):
    base = load_recipe(backbone, [PROMPTS])
    assert changed(load_recipe([backbone, layer], [PROMPTS]), base) == LAYERS[layer]


def test_the_four_step_recipe_changes_only_the_steps():
    base, recipe = load_recipe("shapes"), load_recipe("shapes_4_steps")
    assert changed(recipe, base) == {"student.timesteps": (999, 749, 499, 249)}
    assert recipe.output.folder == "runs/shapes_4_steps"


def test_what_was_measured_at_one_step_is_not_said_of_several():
    several = load_recipe("sd15", [PROMPTS, "student.timesteps=999,499"])
    assert load_recipe("sd15", [PROMPTS]).output.recommended_alpha == 0.04
    assert several.output.recommended_alpha is load_recipe("shapes_4_steps").output.recommended_alpha is None
    assert several.output.title == "PG-SB student"
    assert load_recipe("shapes_4_steps", ["output.recommended_alpha=0.5"]).output.recommended_alpha == 0.5


def test_a_number_of_steps_is_no_timestep():
    with pytest.raises(RecipeError, match=r"student\.timesteps 4: expected the timesteps themselves"):
        load_recipe("shapes", ["student.timesteps=4"])


def test_a_recipe_keeps_its_hash_when_settings_are_added():
    assert load_recipe("shapes").sha256().startswith("c8eb02fc")
    for changed in ("loop.vsd_weight=dmd", "loop.t_shift=2", "lora.t_shift=2", "lora.t_min=10"):
        assert not load_recipe("shapes", [changed]).sha256().startswith("c8eb02fc")


def test_the_lora_teacher_is_trained_wherever_it_is_asked():
    with pytest.raises(
        RecipeError, match=r"lora\.t_min 30 leaves out timesteps of the range 20 to 980.*lora\.t_min=20"
    ):
        load_recipe("shapes", ["lora.t_min=30"])
    with pytest.raises(RecipeError, match=r"lora\.t_max 500 leaves out.*give lora\.t_max=980"):
        load_recipe("shapes", ["lora.t_max=500"])
    assert load_recipe("shapes", ["lora.t_max=500", "loop.t_max=500", "lora.t_shift=2"]).lora.t_max == 500


def test_a_cell_of_table_2_resets_another():
    recipe = load_recipe(["sd21", "table2_neither", "table2_both"], [PROMPTS])
    assert flat(recipe) == flat(load_recipe("sd21", [PROMPTS]))


def test_a_resolved_recipe_names_every_setting():
    """Those without a value are in a comment at its end, so that what can be set is seen."""
    text = load_recipe("shapes", ["guidance.lora_kappa=1"]).to_toml()
    given, comment = tomllib.loads(text), text.partition("\n# Not set: ")[2]
    unset = comment.replace("\n# ", " ").partition(". ")[0].split(", ")
    sections = {section: settings for section, settings in given.items() if section != "seed"}
    shown = [f"{section}.{key}" for section, settings in sections.items() for key in settings]
    assert sorted([*shown, *unset]) == sorted(key for key in _settings() if "." in key) and "seed" in given
    assert "student.alpha_T_squared" in unset and "guidance.lora_kappa" not in unset
    assert max(map(len, comment.splitlines())) <= 120


def test_every_shipped_recipe_is_tested_and_has_a_header(pack_root):
    names = [*BACKBONES, *SMALL, *LARGE, *LORAS, *LAYERS, "sdxl", "avatars", "shapes", "shapes_4_steps"]
    assert recipe_names() == sorted(names)
    for name in recipe_names():
        head = (pack_root / "training" / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        assert head.startswith("# "), f"{name} has no header"
        assert name not in LAYERS or f"--recipe sd21 {name}" in head or f"--recipe sd15 {name}" in head


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_alone_names_the_recipe_it_needs(name):
    with pytest.raises(RecipeError, match=r"teacher.path is required: name a recipe with a teacher first"):
        load_recipe(name, [PROMPTS])


def test_different_recipes_have_different_output_folders():
    assert load_recipe(["sd21", "table2_lora"], [PROMPTS]).output.folder == "runs/sd21-table2_lora"
    assert load_recipe("sd15", [PROMPTS, "output.folder=runs/mine"]).output.folder == "runs/mine"
    assert load_recipe("shapes").output.folder == "runs/shapes"
