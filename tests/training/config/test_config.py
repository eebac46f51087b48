"""Recipes in layers: the resolved settings, and the error messages."""

import tomllib

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.config import Recipe, RecipeError, load_recipe, split_words

MINIMAL = '[teacher]\npath = "t"\n[prompts]\nsource = "shapes"\n'


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems(recipes, overrides=(), **options):
    with pytest.raises(RecipeError) as error:
        load_recipe(recipes, overrides, **options)
    head, *lines = str(error.value).splitlines()
    assert f"{len(lines)} problem(s)" in head
    return [line.removeprefix("  - ") for line in lines]


def test_overrides_take_precedence_and_keep_their_type(tmp_path):
    overrides = [
        "guidance.kappa_max=3",
        "teacher.path=some/folder",
        "loop.precision=no",
        "student.learning_rate=2e-4",
        "output.title=2024",
        "output.trackers=tensorboard",
        'output.sample_prompts=["a", "b"]',
    ]
    recipe = load_recipe(write(tmp_path, MINIMAL), overrides)
    assert recipe.guidance.kappa_max == 3.0
    assert recipe.teacher.path == "some/folder"
    assert recipe.loop.precision == "no"
    assert recipe.student.learning_rate == 2e-4
    assert recipe.output.title == "2024"
    assert recipe.output.trackers == ("tensorboard",)
    assert recipe.output.sample_prompts == ("a", "b")


def test_resolved_recipe_round_trips_through_toml(tmp_path):
    write(tmp_path, MINIMAL + "[loop]\niterations = 7\n", "base.toml")
    recipe = load_recipe(
        write(tmp_path, 'extends = "base.toml"\n'), ["output.title='Ü \"quoted\"'", "student.alpha_T_squared=0.0047"]
    )
    assert recipe.loop.iterations == 7
    assert "extends" not in tomllib.loads(recipe.to_toml())
    assert load_recipe(write(tmp_path, recipe.to_toml(), "again.toml")) == recipe


def test_later_recipes_override_earlier_and_extended_ones(tmp_path):
    write(tmp_path, MINIMAL + "[loop]\niterations = 1\nbatch_size = 1\nwarmup = 1\nthreads = 1\n", "base.toml")
    write(tmp_path, "[loop]\nbatch_size = 2\nwarmup = 0\nthreads = 2\n", "middle.toml")
    first = write(tmp_path, 'extends = ["base.toml", "middle.toml"]\n[loop]\nmicro_batch = 3\nthreads = 3\n', "a.toml")
    second = write(tmp_path, "[loop]\nmicro_batch = 2\nt_min = 4\n", "b.toml")
    loop = load_recipe([first, second], ["loop.t_min=5"]).loop
    assert (loop.iterations, loop.batch_size, loop.warmup, loop.threads) == (1, 2, 0, 3)
    assert (loop.micro_batch, loop.t_min) == (2, 5)
    assert load_recipe([first, second]).output.folder == "runs/a-b"


def test_unset_restores_the_default(tmp_path):
    fixed = write(tmp_path, MINIMAL + "[guidance]\nteacher_kappa = 4.5\nkappa_max = 9\n")
    assert load_recipe(fixed).guidance.teacher_kappa == 4.5
    back = write(tmp_path, '[guidance]\nteacher_kappa = "unset"\n', "back.toml")
    assert load_recipe([fixed, back], ["guidance.kappa_max=unset"]).guidance == Recipe.model_fields["guidance"].default


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": 'extends = "b.toml"', "b": 'extends = "a.toml"'}, "in a circle: a.toml -> b.toml -> a.toml"),
        ({"a": 'extends = "a.toml"'}, "in a circle: a.toml -> a.toml"),
        ({"a": 'extends = "none.toml"'}, "a.toml extends 'none.toml': no such recipe"),
        ({"a": 'extends = "shaps"'}, "a.toml extends 'shaps': no such recipe; did you mean shapes?"),
        ({"a": "extends = 3"}, "a.toml: extends: expected a recipe's name, or a list of names (got [3])"),
        ({"a": 'extends = "b.toml"', "b": "[loop"}, "b.toml is not valid TOML"),
        ({"a": "x = " + "[" * 5000}, "a.toml is not valid TOML"),
    ],
)
def test_errors_between_files(tmp_path, files, expected):
    for name, text in files.items():
        write(tmp_path, text.replace("extends = 3", "extends = [3]"), f"{name}.toml")
    found = problems(str(tmp_path / "a.toml"))
    assert len(found) == 1 and expected in found[0]


def test_all_errors_are_reported_together(tmp_path):
    text = "guidance = 3\n" + MINIMAL + "[loop]\niterations = 0\nprecision = 'fp8'\nt_min = 500\nt_max = 20\n[zebra]\n"
    found = problems(
        [write(tmp_path, text), "swiftbrsh"],
        ["lora.rnk=2", "kappa", "seed.more=1", "loop.micro_batch=7", "teacher.path=no/such/place", "clip.weight=0"],
        check_files=True,
    )
    for expected in (
        "recipe 'swiftbrsh': no such recipe; did you mean swiftbrush?",
        "override 'kappa': expected key=value",
        "guidance: expected a section, [guidance] with settings below it (got 3)",
        "unknown key 'lora.rnk'; did you mean lora.rank?",
        "unknown key 'zebra'; known here: seed, teacher",
        "loop.iterations: Input should be greater than or equal to 1 (got 0)",
        "loop.precision: Input should be 'no' or 'bf16' (got 'fp8')",
        "loop.t_max 20 is below loop.t_min 500",
        "loop.batch_size 64 is not a multiple of loop.micro_batch 7; the next smaller divisor is 4",
        "teacher.path: nothing at 'no/such/place'; expected a diffusers folder, a hub id",
        "seed: ",
    ):
        assert sum(problem.startswith(expected) for problem in found) == 1, (expected, found)
    assert len(found) == 11


def test_an_invalid_setting_causes_no_follow_up_errors(tmp_path):
    """t_min = 990 is above t_max's default, but only the error in t_max itself is reported."""
    assert len(problems(write(tmp_path, MINIMAL + "[loop]\nt_min = 990\nt_max = 'x'\n"))) == 1


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("kappa_max", "did you mean guidance.kappa_max?"),
        ("learning_rate", "did you mean student.learning_rate or lora.learning_rate?"),
        ("guidance.kappa_mx", "did you mean guidance.kappa_max?"),
        ("clip.zzz", "known here: clip.weight, clip.final_weight"),
    ],
)
def test_unknown_keys_suggest_the_nearest(tmp_path, key, expected):
    (found,) = problems(write(tmp_path, MINIMAL), [f"{key}=1"])
    assert found == f"unknown key {key!r}; {found.partition('; ')[2]}" and expected in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[prompts]\nsource = 'shapes'\n", "teacher.path is required: name a recipe with a teacher first"),
        ("[teacher]\npath = 't'\n", "prompts.source is required: give prompts.source= a file with one prompt a line"),
        (MINIMAL + "[guidance]\nkappa_min = 3\nkappa_max = 1\n", "kappa_max 1.0 is below guidance.kappa_min 3.0"),
        (MINIMAL + "[guidance]\nteacher_kappa = -1\n", "guidance.teacher_kappa"),
        (MINIMAL + "[student]\nnasa_alpha_max = 1\nnasa_negatives = []\n", "student.nasa_negatives has none"),
        (MINIMAL + "[student]\nnasa_alpha_max = 1\n[loop]\ncompile = true\n", "compile in every iteration"),
        (MINIMAL + f"[output]\ntitle = {'[' * 90 + '1,' * 900 + ']' * 90}", "output.title: "),
        ("[teacher\n", "not valid TOML"),
    ],
)
def test_errors_of_bad_recipes(tmp_path, text, expected):
    (found,) = problems(write(tmp_path, text))
    assert expected in found and len(found) < 400


def test_unused_settings_are_accepted(tmp_path):
    """LoRA settings without a LoRA student, micro-batches that divide the batch, a random kappa that is also fixed."""
    text = "[student]\nlora_rank = 3\n[loop]\nmicro_batch = 16\n[guidance]\nteacher_kappa = 1\nlora_kappa = 2\n"
    load_recipe(write(tmp_path, MINIMAL + text))


def test_unknown_recipe_name_lists_the_shipped_ones():
    (found,) = problems("shaps")
    assert found.startswith("recipe 'shaps': no such recipe; did you mean shapes?") and "sd15, " in found


@pytest.mark.parametrize("override", ["kappa", "=3", "guidance..kappa_max=3", "seed.more=1"])
def test_bad_overrides(tmp_path, override):
    (found,) = problems(write(tmp_path, "seed = 1\n" + MINIMAL), [override])
    assert found.startswith(f"override {override!r}: ")


def test_command_line_arguments():
    words = ["sd21", "lora.rank=3", "swiftbrush", "output.folder=runs/a=b", "runs/lr=3/recipe.toml", "=3"]
    assert split_words(words) == (
        ["sd21", "swiftbrush", "runs/lr=3/recipe.toml"],
        ["lora.rank=3", "output.folder=runs/a=b", "=3"],
    )


def test_hash_ignores_the_output_section(tmp_path):
    path = write(tmp_path, MINIMAL)
    assert load_recipe(path).sha256() == load_recipe(path, ["output.folder=elsewhere"]).sha256()
    assert load_recipe(path).sha256() != load_recipe(path, ["seed=1"]).sha256()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["teacher.path=models/snoopi-shapes-techer.safetensors"], "contains 'snoopi-shapes-teacher.safetensors'"),
        (["teacher.path=nothing"], "teacher.path: nothing at 'nothing'"),
        (["teacher.path="], "teacher.path: nothing at ''"),
        (["teacher.text_encoder=./none"], "teacher.text_encoder: nothing at './none'; expected a diffusers folder"),
        (["student.init=none.safetensors"], "student.init: nothing at 'none.safetensors'"),
        (["teacher.loras=none/a.safetensors:0.8"], "teacher.loras: no file at 'none/a.safetensors'"),
        (["prompts.source=none/prompts.txt"], "prompts.source: nothing at 'none/prompts.txt'"),
        (["prompts.source="], "prompts.source: nothing at ''"),
        (['prompts.source=["a.txt:x"]'], "prompts.source: 'x' in 'a.txt:x' is not a weight; expected a number above 0"),
        (["clip.weight=1", "clip.decoder=/none"], "clip.decoder: nothing at '/none'"),
        (["clip.weight=1", "clip.model=ViT-B32"], "clip.model: open_clip has no 'ViT-B32'; similar: ViT-B-32"),
        (["clip.weight=1", "clip.pretrained=x.pt"], "clip.pretrained: 'x.pt' is neither a file nor a tag of"),
        (["output.folder=Makefile/run"], "output.folder 'Makefile/run': 'Makefile' is a file, not a folder"),
    ],
)
def test_missing_files_are_reported(monkeypatch, pack_root, overrides, expected):
    monkeypatch.chdir(pack_root)
    (found,) = problems("shapes", overrides, check_files=True)
    assert expected in found
    load_recipe("shapes", overrides)  # files are not checked by default


def test_missing_libraries_are_reported(monkeypatch, tmp_path):
    """With an empty search path: neither libraries nor compilers."""
    overrides = ["loop.optimizer=adamw8bit", "loop.compile=true", "output.trackers=wandb", "clip.weight=1"]
    for module in ("checks", "clip_models"):
        monkeypatch.setattr(f"training.config.{module}.find_spec", lambda name: None)
    monkeypatch.setattr("training.config.checks.package_versions", lambda *names: {})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    found = problems("shapes", overrides, check_files=True)
    for expected in ("bitsandbytes", "C++ compiler", "pip install wandb", "open_clip_torch"):
        assert sum(expected in problem for problem in found) == 1, (expected, found)
    assert len(found) == 4


def test_a_batch_that_processes_cannot_share_is_reported(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    (found,) = problems("shapes", check_files=True)
    assert "loop.batch_size 32 cannot be split evenly over 3 processes; give a multiple of 3, such as 33" in found


def test_hub_ids_are_not_checked(pack_root, monkeypatch):
    monkeypatch.chdir(pack_root)
    load_recipe("shapes", ["teacher.path=owner/name", "prompts.source=owner/name"], check_files=True)


def test_text_settings_keep_the_typed_text(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed in ("2026-11-25", "1_000", "1e3", "true", "[a]"):
        assert load_recipe("shapes", [f"output.folder={typed}"]).output.folder == typed
    assert load_recipe("shapes", ["output.folder='a b'"]).output.folder == "a b"
    assert load_recipe("shapes", ["output.folder=~/runs"]).output.folder == str(tmp_path / "runs")


NAMES = st.sampled_from([*Recipe.model_fields, "path", "source", "kappa_max", "t_min", "trackers", "extends", "x"])
VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(10**40), 10**40),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from(["unset", "shapes", "~nobody/x", "/", "\0", "a/" * 3000]),
        st.datetimes(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(tree=st.dictionaries(NAMES, VALUES, max_size=5))
def test_any_toml_gives_a_recipe_or_one_clear_error(tmp_path, tree):
    try:
        path = write(tmp_path, tomli_w.dumps(tree))
    except UnicodeEncodeError:
        return
    resolves_or_explains(["shapes", path], [])


@FUZZ
@given(
    words=st.lists(st.text(max_size=30) | st.builds("{}.{}={}".format, NAMES, NAMES, VALUES), max_size=4),
    names=st.lists(st.text(max_size=10) | st.sampled_from(["shapes", "a" * 5000, ".toml", "/", "~x"]), max_size=2),
)
def test_any_arguments_give_a_recipe_or_one_clear_error(words, names):
    found, overrides = split_words([*names, *words])
    resolves_or_explains(found, overrides)


@FUZZ
@given(content=st.binary(max_size=60))
def test_any_file_gives_a_recipe_or_one_clear_error(tmp_path, content):
    (tmp_path / "bytes.toml").write_bytes(content)
    resolves_or_explains(["shapes", str(tmp_path / "bytes.toml")], [])


def resolves_or_explains(names, overrides):
    try:
        recipe = load_recipe(names, overrides, check_files=True)
    except RecipeError as error:
        assert "problem(s)" in str(error)
    else:
        saved = tomllib.loads(recipe.to_toml())["prompts"]["source"]
        assert (saved if isinstance(saved, str) else tuple(saved)) == recipe.prompts.source
