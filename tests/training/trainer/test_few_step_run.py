"""A run of a few-step student from the command to the exported file: resumed, sampled, and its settings checked."""

import json

import pytest
from trainer import assert_same

from snoopi_core.formats.checkpoint import read_metadata
from training.config import load_recipe
from training.pgsb import main
from training.trainer.estimate.dry_run import start_section

STEPS = ("student.timesteps=999,749,499", "student.transition=euler", "lora.updates=2", "lora.batches=fresh")
SAMPLES = ("output.sample_every=2", "output.sample_prompts=a ring", "output.sample_seeds=2")


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert main(tiny_run(folder, *STEPS, *SAMPLES, "loop.iterations=4")) == 0
    return folder


def test_a_resumed_run_is_the_same(tiny_run, finished, tmp_path):
    """Steps, their noise, and the prompts of fresh batches continue where they were."""
    arguments = (*STEPS, *SAMPLES, "--resume", "output.save_every=1")
    assert main(tiny_run(tmp_path, *arguments, "loop.iterations=3")) == 0
    assert main(tiny_run(tmp_path, *arguments, "loop.iterations=4")) == 0
    assert_same(tmp_path, finished)
    distances = [figures(folder)[-1].get("sample_distance") for folder in (tmp_path, finished)]
    assert distances[0] == distances[1] is not None


def figures(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_log_and_the_file_say_which_steps(finished):
    assert {line["step"] for line in figures(finished)} <= {1, 2, 3}
    recipe = read_metadata(finished / "export" / "student.safetensors").recipe
    assert (recipe.timesteps, recipe.steps, recipe.noise) == ((999, 749, 499), "euler", "unit")
    assert recipe.alpha_T**2 == pytest.approx(0.00466, abs=1e-5)
    assert "  step " in (finished / "README.txt").read_text(encoding="utf-8")


def test_other_steps_are_another_recipe(tiny_run, finished, capsys):
    arguments = (*STEPS, *SAMPLES, "student.timesteps=999,499", "loop.iterations=4", "--resume")
    assert main(tiny_run(finished, *arguments)) == 2
    assert "student.timesteps: [999, 749, 499] -> [999, 499]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["student.timesteps=499,999"], "student.timesteps: expected strictly decreasing timesteps"),
        (["student.timesteps=999,999"], "student.timesteps: expected strictly decreasing timesteps"),
        (["student.timesteps=999,four"], "student.timesteps.1: Input should be a valid integer"),
        (["student.timesteps=1200,499"], "student.timesteps begins at 1200, but the teacher's last timestep is 999"),
        (
            ["student.timesteps=999,499", "student.alpha_T_squared=0.5"],
            "student.alpha_T_squared 0.5 leaves less noise at timestep 999 than the teacher's schedule has at 499",
        ),
        (
            ["student.timesteps=999,499", "student.timestep=400"],
            "student.timestep 400 is not where student.timesteps [999, 499] begins; give student.timestep=999",
        ),
        (
            ["student.timesteps=999,499", "student.step_weights=[1]"],
            "student.step_weights [1.0]: expected 2 number(s), one for each timestep of [999, 499]",
        ),
        (["student.step_weights=[1, 1]"], "expected 1 number(s), one for each timestep of [999]"),
        (
            ["student.timesteps=999,499", "student.step_weights=[0, 1]"],
            "the step at timestep 999 would never be trained",
        ),
        (["lora.batches=fresh"], "lora.batches=fresh concerns the second and later updates, but lora.updates is 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny_run, tmp_path, capsys, settings, message):
    assert main(tiny_run(tmp_path / "run", *settings)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_step_of_weight_0_is_trained_through_the_later_ones(tiny_run, tmp_path):
    steps = ("student.timesteps=[999, 499]", "student.step_weights=[0, 1]", "student.step_gradient=all")
    assert main(tiny_run(tmp_path, *steps, "loop.iterations=1")) == 0
    assert figures(tmp_path)[0]["step"] == 2


def test_the_dry_run_says_how_the_student_is_sampled(tmp_path):
    overrides = [*STEPS, "student.step_weights=[1, 1, 2]", f"output.folder={tmp_path / 'run'}"]
    section = start_section(load_recipe("shapes", overrides), resume=False, accept_changes=False)
    assert "3 steps, at timesteps 999, 749, 499; drawn in 25 %, 25 %, 50 % of the iterations" in section
    assert "1.25 earlier steps on average, without gradient; transition: euler" in section
