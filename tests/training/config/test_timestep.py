"""student.timestep beside student.timesteps: what would have no effect is refused, unless nobody gave it."""

import pytest

from training.config import RecipeError, load_recipe

MINIMAL = '[teacher]\npath = "t"\n[prompts]\nsource = "shapes"\n'


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("", ["student.timestep=999", "student.timesteps=[749]"]),
        ("[student]\ntimestep = 999\ntimesteps = [749]\n", []),
        ("[student]\ntimestep = 400\n", ["student.timesteps=999,499"]),
    ],
)
def test_a_timestep_without_effect_is_refused(tmp_path, text, overrides):
    """Also one that equals the default."""
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"student.timestep \d+ is not where .* begins; give student.timestep=\d+"):
        load_recipe(str(path), overrides)


def test_a_saved_recipe_has_a_timestep_that_nobody_gave(tmp_path):
    path = tmp_path / "saved.toml"
    for saved in ([], ["student.timesteps=[749]"]):
        path.write_text(load_recipe("shapes", saved).to_toml(), encoding="utf-8")
        assert load_recipe(str(path), saved) == load_recipe("shapes", saved)
        assert load_recipe(str(path), ["student.timesteps=[499, 249]"]).student.steps == (499, 249)
    assert load_recipe(["pixart", str(path)]).student.steps == (749,)
    path.write_text(load_recipe("shapes").to_toml(), encoding="utf-8")
    assert load_recipe(["pixart", str(path)]).student.steps == (999,)


def test_a_timestep_given_over_a_saved_recipe_must_fit(tmp_path):
    path = tmp_path / "saved.toml"
    path.write_text(load_recipe("shapes", ["student.timesteps=[749]"]).to_toml(), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"give student\.timestep=749 with it"):
        load_recipe(str(path), ["student.timestep=999"])
