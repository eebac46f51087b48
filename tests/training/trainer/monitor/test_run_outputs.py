"""Outputs of a run for its user, made by the command on one process and on two."""

import json
import re
import resource
import signal
import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import STOCK_SCALE, tiny_backbone
from trainer import start_distributed, with_fsdp

from training.config import load_recipe
from training.pgsb import main
from training.trainer.export import export_backbone
from training.trainer.monitor.callbacks import first_prompts
from training.trainer.monitor.caption_font import caption_font
from training.trainer.monitor.metrics_log import MetricsLog, read_metrics
from training.trainer.monitor.report import curves, write_report
from training.trainer.monitor.sample_grid import GAP, MARGIN, sample_grid
from training.trainer.monitor.samples import as_tiles
from training.trainer.run_folder.checkpoint import best_checkpoint, check_intact

PROMPTS = ["a cat", "a dog & a <b>cat</b>", "a very long prompt, " * 20]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    path.with_name("prompts.txt").write_text("a cat\na dog\na bird\n", encoding="utf-8")
    backbone = tiny_backbone("v_prediction", latent_scale=STOCK_SCALE)
    return export_backbone(path, backbone, title="tiny", role="teacher")


def arguments(teacher, folder, *more):
    return [
        *("--recipe", "shapes", "--cpu", f"teacher.path={teacher}", f"output.folder={folder}"),
        *("loop.iterations=4", "loop.warmup=0", "loop.batch_size=4", "output.save_every=2", "output.sample_every=2"),
        f"prompts.source={teacher.with_name('prompts.txt')}",
        *("output.log_every=1", "output.sample_seeds=2", f"output.sample_prompts={json.dumps(PROMPTS)}"),
        *more,
    ]


@pytest.fixture(scope="module")
def finished(teacher, tmp_path_factory):
    """Two iterations, and a resume to the fourth, with a title that HTML would read as tags."""
    folder = tmp_path_factory.mktemp("finished")
    more = ["output.title=a <student>"]
    assert main(arguments(teacher, folder, "loop.iterations=2", *more)) == 0
    (folder / "samples" / "step-00000003.png").write_bytes(b"of a future that was abandoned")
    assert main(arguments(teacher, folder, "--resume", *more)) == 0
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_logged_iteration_has_the_students_metrics(finished):
    found = lines(finished)
    assert [line["iteration"] for line in found] == [1, 2, 3, 4]
    for line in found:
        assert {"vsd", "gap", "lora", "kappa", "student_grad", "lora_grad", "x0_mean", "x0_far"} <= line.keys()
        assert {
            "x0_std",
            "x0_std_c3",
            "x0_diversity",
            "x0_std_of_teacher",
            "memory_gib",
            "iterations_per_s",
        } <= line.keys()
        by_timestep = [value for name, value in line.items() if name.startswith("gap_t")]
        assert by_timestep and min(by_timestep) <= line["gap"] * 1.001 and max(by_timestep) >= line["gap"] * 0.999
    assert ["sample_distance" in line for line in found] == [False, True, False, True]
    sampled = {line["iteration"]: line for line in found if "sample_distance" in line}
    kept = check_intact(best_checkpoint(finished / "checkpoints"))
    for field in ("distance", "diversity"):
        assert kept[field] == pytest.approx(sampled[kept["iteration"]][f"sample_{field}"])


def test_tensorboard_has_the_same_figures(finished):
    shown = EventAccumulator(str(finished / "tensorboard" / "snoopi"))
    shown.Reload()
    vsd = [(event.step, event.value) for event in shown.Scalars("train/vsd")]
    assert vsd == [(line["iteration"], pytest.approx(line["vsd"], rel=1e-5)) for line in lines(finished)]
    assert [image.step for image in shown.Images("samples/grid")] == [2, 4]


def test_the_folder_explains_itself(finished):
    content = json.loads((finished / "environment.json").read_text(encoding="utf-8"))
    assert content["torch"] == torch.__version__.partition("+")[0] and content["processes"] == 1
    assert [session["iteration"] for session in content["sessions"]] == [0, 2]
    resolved = tomllib.loads((finished / "recipe.toml").read_text(encoding="utf-8"))
    assert resolved["output"]["sample_prompts"] == PROMPTS and resolved["loop"]["t_max"] == 980
    text = (finished / "README.txt").read_text(encoding="utf-8")
    for path in finished.iterdir():
        assert path.name in text or path.name == "README.txt" or path.name.startswith("."), (
            f"README.txt does not name {path.name}"
        )
    assert f"--resume {finished}\n" in text
    assert (finished / "samples" / "prompts.txt").read_text(encoding="utf-8").startswith("1. a cat\n2. a dog & a <b>")
    assert not list(finished.rglob("*.tmp"))


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attributes)["src"])


def test_the_report_shows_the_grids_newest_first(finished):
    page = Page((finished / "report.html").read_text(encoding="utf-8"))
    assert page.images[0].startswith("data:image/png;base64,")
    assert page.images[1:] == ["samples/step-00000004.png", "samples/step-00000002.png"]
    assert all((finished / image).is_file() for image in page.images[1:])
    assert "student" not in page.tags, "text of users must not become tags"


def test_a_report_of_nothing_yet_and_of_warnings(tmp_path):
    recipe = load_recipe("shapes")
    page = write_report(tmp_path, recipe, []).read_text(encoding="utf-8")
    assert "Iteration 0 of 700. No active warnings." in page and "<img" not in page
    page = write_report(tmp_path, recipe, ["too <low>"]).read_text(encoding="utf-8")
    words = " ".join(re.sub("<[^>]*>", " ", page.partition("<h1>")[2]).split())
    assert "Active warnings: too &lt;low&gt;" in words, "the warnings follow their heading at once"
    assert "README.txt explains the metrics. Active warnings:" in words


def test_curves_hold_zeros_and_long_runs():
    """A logarithmic axis cannot show the first gap, which is 0."""
    zero = curves([{"iteration": 1, "vsd": 0.0, "gap_t20": 0.0}])
    long = curves([{"iteration": n, "vsd": 1.0 / n, "gap_t20": 1.0, "gap_t260": 2.0} for n in range(1, 5000)])
    assert zero.startswith(b"\x89PNG") and long.startswith(b"\x89PNG") and len(long) > len(zero)


def test_panels_without_a_figure_are_left_out(monkeypatch):
    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: shown.append([a for a in figure.axes if a.axison]))
    measured = {"eval_absent": 0.5, "eval_absent_low": 0.4, "eval_absent_high": 0.7}
    curves([{"iteration": n, "vsd": 0.1, **measured, "sample_distance": None} for n in (1, 2)])
    (panels,) = shown
    assert [axes.get_title() for axes in panels] == ["losses", "with a negative prompt, shares of images (bands: 95 %)"]
    assert all(axes.lines for axes in panels)
    assert [len(axes.collections) for axes in panels] == [0, 1], "the interval is drawn"


def test_a_grid_has_a_column_for_each_prompt_and_the_teacher_above():
    colours = torch.arange(3 * 2).view(3, 2, 1, 1, 1).expand(3, 2, 3, 96, 96).to(torch.uint8)
    grid = np.asarray(sample_grid(PROMPTS, [("teacher", colours), ("student", colours + 100)]))
    pitch, top = 96 + GAP, grid.shape[0] - 4 * (96 + GAP) - 4 * GAP
    for prompt in range(3):
        for row in range(4):
            y, x = top + row * pitch + (row // 2) * 2 * GAP + 48, MARGIN + prompt * pitch + 48
            assert grid[y, x].tolist() == [prompt * 2 + row % 2 + 100 * (row // 2)] * 3
    assert (grid[:top, MARGIN:] < 128).any() and (grid[top:, :MARGIN] < 128).any(), "labels are missing"


@pytest.mark.parametrize("text", ["naïve café", "кошка на ковре", "γάτα", "a → b … “c”"])
def test_captions_are_drawn_in_other_alphabets(text):
    """As with the font that is known to have them, and not as boxes; every letter differs from the box."""
    font, replaced = caption_font([text], 12)
    assert not replaced
    box = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != box for letter in text if letter.strip())


def test_characters_that_no_font_has_are_replaced_and_named(caplog):
    private = "\U000f1234"
    font, replaced = caption_font([f"a {private}", "b"], 12)
    assert replaced == {ord(private): "?"} and font.getlength("a") > 0
    assert "captions show ? for them: (U+F1234); install a font" in caplog.text
    tiles = torch.zeros(1, 1, 3, 96, 96, dtype=torch.uint8)
    grids = [sample_grid([prompt], [("teacher", tiles)]) for prompt in (f"a {private}\nb", "a ? b")]
    assert np.array_equal(*map(np.asarray, grids))


def test_a_source_of_few_prompts_gives_a_column_for_each_once(tmp_path):
    (tmp_path / "few.txt").write_text("a\nb\na\nc\n", encoding="utf-8")
    (tmp_path / "many.txt").write_text("".join(f"{n // 2}\n" for n in range(40)), encoding="utf-8")
    few = first_prompts(load_recipe("shapes", [f"prompts.source={tmp_path / 'few.txt'}"]))
    assert sorted(few) == ["a", "b", "c"]
    for source in (tmp_path / "many.txt", "shapes"):
        found = first_prompts(load_recipe("shapes", [f"prompts.source={source}"]))
        assert len(found) == len(set(found)) == 8


def test_tiles_are_neither_tiny_nor_huge():
    for size, shown in ((512, 192), (500, 192), (192, 192), (100, 100), (64, 128), (8, 96)):
        assert as_tiles(torch.rand(2, 3, size, size)).shape == (2, 3, shown, shown)
    assert as_tiles(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1))[0, :, 5, 5].tolist() == [0, 128, 255]


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("alter", [None, with_fsdp], ids=["DDP", "FSDP"])
def test_two_processes_draw_the_same_pictures(teacher, finished, tmp_path, alter):
    """Three prompts cannot be divided evenly on two processes."""
    pair = start_distributed(tmp_path / "log", *arguments(teacher, tmp_path), alter=alter)
    output = "".join(trainer.end() for trainer in pair)
    assert output.count("PG-SB 4/4") >= 1 and "PG-SB 0/4" in output
    ours, theirs = (load_file(folder / "samples" / "teacher.safetensors") for folder in (tmp_path, finished))
    assert (ours["x0"] - theirs["x0"]).abs().max() <= 1e-5 * theirs["x0"].abs().max()
    for name in ("step-00000002.png", "step-00000004.png"):
        a, b = (np.asarray(Image.open(folder / "samples" / name)).astype(int) for folder in (tmp_path, finished))
        assert a.shape == b.shape and abs(a - b).max() <= 2
    for one, other in zip(lines(tmp_path), lines(finished), strict=True):
        for name in ("x0_std", "x0_diversity", "gap", "x0_far", "x0_std_of_teacher"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-7)
        assert one.keys() == other.keys()
    shown = EventAccumulator(str(tmp_path / "tensorboard" / "snoopi"))
    shown.Reload()
    assert len(list((tmp_path / "tensorboard" / "snoopi").iterdir())) == 1, "the second process wrote events too"
    assert [event.step for event in shown.Scalars("train/vsd")] == [1, 2, 3, 4]


def test_a_full_disk_leaves_no_half_line(tmp_path):
    """A line that does not fit is not written at all, so the next line is complete."""
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log.write(1, {"vsd": 1.0})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limit[1]))
    try:
        with pytest.raises(OSError):
            log.write(2, {"vsd": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    log.write(3, {"vsd": float("nan")})
    assert path.read_text(encoding="utf-8") == '{"iteration": 1, "vsd": 1.0}\n{"iteration": 3, "vsd": null}\n'


def test_the_log_is_cut_to_the_iterations_of_a_resumed_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1, "vsd": 1.0}\nno JSON\n{"iteration": 2, "vsd": 2.0}\n{"iteration": 3, "vs')
    assert [line["iteration"] for line in MetricsLog(path, 1).before] == [1]
    assert read_metrics(path) == [{"iteration": 1, "vsd": 1.0}]
