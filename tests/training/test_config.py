import pytest

from training.config import Recipe, RecipeError, load_recipe, recipe_names


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


MINIMAL = '[teacher]\npath = "t"\n[prompts]\nsource = "shapes"\n'


def test_defaults_are_table_6_for_sd15(tmp_path):
    recipe = load_recipe(write(tmp_path, MINIMAL))
    assert (recipe.guidance.kappa_min, recipe.guidance.kappa_max) == (0.5, 4.0)
    assert (recipe.student.learning_rate, recipe.lora.learning_rate) == (1e-6, 1e-3)
    assert (recipe.lora.rank, recipe.lora.scaling) == (64, 128)
    assert (recipe.loop.batch_size, recipe.loop.iterations, recipe.loop.precision) == (64, 60_000, "bf16")


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_resolve(name):
    recipe = load_recipe(name)
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_overrides_win_and_keep_their_type(tmp_path):
    overrides = ["guidance.kappa_max=3", "teacher.path=some/folder", "loop.precision=no", "student.learning_rate=2e-4"]
    recipe = load_recipe(write(tmp_path, MINIMAL), overrides)
    assert recipe.guidance.kappa_max == 3.0
    assert recipe.teacher.path == "some/folder"
    assert recipe.loop.precision == "no"
    assert recipe.student.learning_rate == 2e-4


def test_resolved_recipe_round_trips_through_toml(tmp_path):
    recipe = load_recipe(write(tmp_path, MINIMAL), ["output.title='Ü \"quoted\"'", "student.alpha_T_squared=0.0047"])
    assert load_recipe(write(tmp_path, recipe.to_toml())) == recipe


def test_all_errors_come_at_once_with_the_nearest_key(tmp_path):
    text = MINIMAL + "[guidance]\nkappa_mx = 3\n[loop]\niterations = 0\nprecision = 'fp8'\n"
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, text))
    message = str(error.value)
    assert "3 problem(s)" in message
    assert "unknown key guidance.kappa_mx; did you mean guidance.kappa_max?" in message
    assert "loop.iterations" in message and "loop.precision" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[prompts]\nsource = 'shapes'\n", "teacher is required"),
        (MINIMAL + "[guidance]\nkappa_min = 3\nkappa_max = 1\n", "kappa_max 1.0 is below kappa_min 3.0"),
        (MINIMAL + "[loop]\nt_min = 500\nt_max = 20\n", "loop.t_max 20 is below loop.t_min 500"),
        (MINIMAL + "[zebra]\n", "unknown key zebra; known here: seed, teacher"),
        ("[teacher\n", "not valid TOML"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path, text, expected):
    with pytest.raises(RecipeError, match=expected.replace("(", r"\(")):
        load_recipe(write(tmp_path, text))


def test_unknown_name_lists_the_shipped_ones():
    with pytest.raises(RecipeError, match=r"no recipe 'shaps'; shipped: .*shapes"):
        load_recipe("shaps")


@pytest.mark.parametrize("override", ["kappa", "=3", "guidance..kappa_max=3", "seed.more=1"])
def test_bad_overrides(tmp_path, override):
    with pytest.raises(RecipeError, match="override"):
        load_recipe(write(tmp_path, "seed = 1\n" + MINIMAL), [override])


def test_hash_ignores_where_output_goes(tmp_path):
    path = write(tmp_path, MINIMAL)
    assert load_recipe(path).sha256() == load_recipe(path, ["output.folder=elsewhere"]).sha256()
    assert load_recipe(path).sha256() != load_recipe(path, ["seed=1"]).sha256()
