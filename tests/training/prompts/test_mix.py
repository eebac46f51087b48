"""Several sources by weight, as one stream."""

import json

import pytest
from prompt_files import numbered_prompts, write

from training.config import Prompts, RecipeError, load_recipe
from training.prompts import open_prompts, recipe_prompts


@pytest.fixture
def sources(tmp_path):
    """A list of sources with their weights, and the files."""
    files = [write(tmp_path / name, [f"{name[0]} {n}" for n in range(5)]) for name in ("a.txt", "b.csv")]
    return [f"{files[0]}:3", f"{files[1]}:1"], files


def opened(sources, seed=0):
    return open_prompts(Prompts(source=sources), seed)


def test_each_source_gets_its_share(sources):
    mix = opened(sources[0])
    given = mix.take(8000)
    share = sum(prompt.startswith("a") for prompt in given) / len(given)
    assert share == pytest.approx(0.75, abs=0.03)
    alone = opened([sources[0][0]]).take(50)
    assert [prompt for prompt in given if prompt.startswith("a")][:50] == alone, "each source keeps its own order"
    assert mix.counts["given"] == 8000 and mix.counts["epochs"] == min(s.counts["epochs"] for s in mix.sources) > 300
    assert opened(sources[0]).take(8000) == given and opened(sources[0], seed=1).take(8000) != given
    first, second = mix.describe()
    assert first.startswith("0.75 of the prompts from ") and "one prompt a line; 5 prompts, shuffled together" in first
    assert second.startswith("0.25 of the prompts from ") and "separated by comma" in second
    worlds = [f"0.5 of the prompts from captions of the {world} world, without end" for world in ("shapes", "avatars")]
    assert opened(["shapes", "avatars"]).describe() == worlds


@pytest.mark.parametrize("before", [0, 1, 7, 4095, 5000])
def test_a_resumed_mix_equals_an_uninterrupted_one(sources, before):
    whole, stopped = opened(sources[0]), opened(sources[0])
    assert stopped.take(before) == whole.take(before)
    resumed = opened(sources[0])
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert resumed.counts == whole.counts
    assert resumed.take(300) == whole.take(300)


def test_the_state_of_another_number_of_sources_is_of_another_kind(sources):
    one, two = opened(sources[1][0].as_posix()), opened(sources[0])
    for stream, state in ((two, one.state_dict()), (one, two.state_dict())):
        with pytest.raises(KeyError):
            stream.load_state_dict(state)


def test_a_state_of_other_kinds_of_sources_changes_no_position(sources):
    files, mixed = opened(sources[0]), opened([sources[0][0], "shapes"])
    mixed.take(7)
    expected = opened(sources[0]).take(20)
    with pytest.raises(KeyError):
        files.load_state_dict(mixed.state_dict())
    assert files.take(20) == expected, "the log says that it starts from its beginning"


def test_a_recipe_names_several_sources(sources, tmp_path):
    texts, files = sources
    typed = f"prompts.source={json.dumps(texts)}"
    recipe = load_recipe("shapes", [typed], check_files=True)
    assert recipe.prompts.source == tuple(texts)
    assert recipe.prompts.sources == ((str(files[0]), 3.0), (str(files[1]), 1.0))
    saved = tmp_path / "recipe.toml"
    saved.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(str(saved)) == recipe and load_recipe(str(saved)).sha256() == recipe.sha256()
    encoded = list(recipe_prompts(recipe))  # what the text cache holds
    assert set(encoded) >= {"", *(f"{name} {n}" for name in "ab" for n in range(5))}
    shapes = load_recipe("shapes", ['prompts.source=["shapes:0.5", "a/b:config:2"]'])
    assert shapes.prompts.sources == (("shapes", 0.5), ("a/b:config", 2.0))
    windows = load_recipe("shapes", [r"prompts.source=['C:\new\a.txt:3', 'b.txt']"])  # as the pages quote it
    assert windows.prompts.sources == ((r"C:\new\a.txt", 3.0), ("b.txt", 1.0))
    one = load_recipe("shapes", ["prompts.source=C:/a.txt"])
    assert one.prompts.sources == (("C:/a.txt", 1.0),) and 'source = "C:/a.txt"' in one.to_toml()
    assert load_recipe("shapes", ["prompts.source=[ab]*.txt"]).prompts.source == "[ab]*.txt"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ('["a.txt:0"]', "the weight of 'a.txt:0' is 0, expected a number above 0"),
        ('["a.txt:-1", "b.txt"]', "the weight of 'a.txt:-1' is -1"),
        ("[]", "expected at least one source in the list"),
        ("[1, 2]", "expected at least one source in the list"),
        ("[a.txt:3,b.txt:1]", "expected a list of texts in quotes; a shell may take the quotes away"),
        (r'["C:\new\a.txt", "D:\x.txt"]', "in double quotes a backslash begins an escape"),
        ('["nowhere.txt:2"]', "prompts.source: nothing at 'nowhere.txt'"),
    ],
)
def test_wrong_lists_are_explained(typed, expected):
    with pytest.raises(RecipeError, match="1 problem") as error:
        load_recipe("shapes", [f"prompts.source={typed}"], check_files=True)
    assert expected in str(error.value)


def test_skipped_and_empty_prompts_are_counted_over_all_sources(tmp_path):
    one, two = write(tmp_path / "a.txt", ["", *numbered_prompts(3)]), write(tmp_path / "b.txt", ["", "", "x"])
    mix = opened([f"{one}:1", f"{two}:1"])
    mix.take(1)
    assert mix.counts["empty"] == 3
