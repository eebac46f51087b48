"""The stream of prompts: shuffling, exact resume, and skipped prompts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_files import KINDS, numbered_prompts, open_stream, write

from training.distill.rng import generator
from training.prompts import store
from training.prompts.avatars.captions import caption as avatar_caption
from training.prompts.avatars.scene import sample_scenes as sample_avatars
from training.prompts.shapes.captions import partial_caption
from training.prompts.shapes.scene import sample_scenes


def test_blocks_are_shuffled_and_block_size_one_keeps_the_order(tmp_path):
    path = write(tmp_path / "a.txt", numbered_prompts(100))
    assert open_stream(path, shuffle_block=1).take(250) == (numbered_prompts(100) * 3)[:250]
    shuffled = open_stream(path, shuffle_block=10).take(100)
    blocks = [shuffled[n : n + 10] for n in range(0, 100, 10)]
    assert all(sorted(block) == sorted(numbered_prompts(100)[10 * n : 10 * n + 10]) for n, block in enumerate(blocks))
    orders = {tuple(int(prompt.split()[1]) % 10 for prompt in block) for block in blocks}
    assert len(orders) == 10, "all blocks have the same permutation"
    assert open_stream(path, seed=1, shuffle_block=10).take(100) != shuffled


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(any),
    block=st.integers(0, 12),
    before=st.lists(st.integers(0, 13), max_size=4),
    after=st.integers(1, 40),
    kind=st.sampled_from(["txt", "csv", "jsonl", "parquet"]),
    skip=st.booleans(),
)
def test_a_resumed_stream_equals_an_uninterrupted_one(tmp_path_factory, sizes, block, before, after, kind, skip):
    folder = tmp_path_factory.mktemp("prompts")
    for file, size in enumerate(sizes):
        write(folder / f"{file}.{kind}", ["", *[f"{file} {n}" + " long" * (n % 3 == 1) for n in range(size)]])
    section = {
        "shuffle_block": block,
        "over_long": "skip" if skip else "cut",
        "count_tokens": lambda prompts: [len(prompt.split()) for prompt in prompts],
        "max_tokens": 2,
    }
    whole, stopped = open_stream(folder, **section), open_stream(folder, **section)
    for count in before:
        assert stopped.take(count) == whole.take(count)
        state = json.loads(json.dumps(stopped.state_dict()))
        stopped = open_stream(folder, **section)
        stopped.load_state_dict(state)
        assert stopped.counts == whole.counts
    assert stopped.take(after) == whole.take(after)
    assert stopped.counts == whole.counts


def test_by_default_a_large_sorted_file_is_shuffled_as_a_whole(tmp_path, monkeypatch):
    """With its text in a temporary file; a small file keeps the order that blocks of 65,536 gave it."""
    monkeypatch.setattr(store, "_IN_MEMORY", 100)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.txt", [f"{name} {n:04d}" for n in range(1000)])
    stream = open_stream(tmp_path)
    first = stream.take(200)
    assert all(any(prompt.startswith(start) for prompt in first) for start in ("a 00", "a 09", "b 00", "b 09"))
    assert len(set(first + stream.take(1800))) == 2000 and stream.counts["epochs"] == 0
    assert stream.describe() == [f"{tmp_path / 'a.txt'} and 1 more: one prompt a line; 2000 prompts, shuffled together"]
    assert stream.take(200) != first
    for seed in (0, 1):
        whole, blocks = (open_stream(tmp_path, seed, shuffle_block=block) for block in (0, 65_536))
        assert whole.take(5000) == blocks.take(5000)
        assert whole.counts == blocks.counts


def test_a_full_disk_for_the_shuffle_is_explained(tmp_path, monkeypatch):
    class Full:
        def __init__(self, max_size):
            pass

        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.tempfile, "SpooledTemporaryFile", Full)
    path = write(tmp_path / "a.txt", ["x"])
    with pytest.raises(
        OSError, match=r"No space left on device.*set TMPDIR to a larger disk, or give prompts\.shuffle_"
    ):
        open_stream(path)


def test_another_process_resumes_at_the_same_place_and_writes_nothing_to_home(tmp_path):
    write(tmp_path / "a.parquet", numbered_prompts(50))
    stream = open_stream(tmp_path, shuffle_block=7)
    stream.take(61)
    (tmp_path / "state.txt").write_text(json.dumps(stream.state_dict()), encoding="utf-8")
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import json, sys, pathlib; from training.config import Prompts; from training.prompts import open_prompts\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "stream = open_prompts(Prompts(source=str(folder / 'a.parquet'), shuffle_block=7), 0)\n"
        "stream.load_state_dict(json.loads((folder / 'state.txt').read_text()))\n"
        "print(json.dumps(stream.take(80)))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(run.stdout) == stream.take(80)
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("world", "caption", "sample"),
    [("shapes", partial_caption, sample_scenes), ("avatars", avatar_caption, sample_avatars)],
)
def test_a_small_world_gives_the_captions_of_each_iteration(world, caption, sample):
    stream = open_stream(world, seed=3)
    for call, size in enumerate((8, 3, 8)):
        rng = generator(3, "prompts", call)
        assert stream.take(size) == [caption(scene, rng)[0] for scene in sample(size, rng)]
    with pytest.raises(ValueError, match=f'captions of "{world}" are generated without end'):
        stream.one_pass()
    resumed = open_stream(world, seed=3)
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert resumed.take(4) == stream.take(4)
    assert stream.counts["given"] == 23


def test_invalid_prompts_are_skipped_and_counted(tmp_path):
    lines = [
        '{"prompt": "a cat", "n": 1}',
        '{"prompt": null}',
        '{"prompt": " "}',
        "",
        '{"prompt": 7}',
        '{"other": "x"}',
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines, '{"prompt": " a dog \\ud83d"}']), encoding="utf-8")
    stream = open_stream(path, shuffle_block=1)
    assert stream.take(2) == ["a cat", "a dog"], "stripped, and without lone surrogates"
    assert stream.counts == {"given": 2, "empty": 5, "over-long": 0, "epochs": 0}
    stream.take(2)
    assert stream.counts == {"given": 4, "empty": 10, "over-long": 0, "epochs": 1}


@pytest.mark.parametrize("over_long, expected", [("cut", numbered_prompts(4)), ("skip", ["prompt 0", "prompt 2"])])
def test_long_prompts_are_cut_or_skipped_and_counted(tmp_path, over_long, expected):
    path = write(tmp_path / "a.txt", numbered_prompts(4))
    stream = open_stream(
        path,
        over_long=over_long,
        shuffle_block=1,
        count_tokens=lambda prompts: [77 + int(prompt[-1]) % 2 for prompt in prompts],
        max_tokens=77,
    )
    assert stream.take(2 * len(expected)) == expected * 2
    assert stream.counts["over-long"] == (4 if over_long == "cut" else 3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompts_is_an_error_not_an_endless_loop(tmp_path, kind):
    empty = tmp_path / f"empty.{kind}"
    empty.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"empty\.{kind} is empty \(0 bytes\)"):
        open_stream(empty)
    if kind != "json":  # an empty list has no columns
        with pytest.raises(ValueError, match=rf"blank\.{kind}.*no usable prompt in any of it \(2 rows without text\)"):
            open_stream(write(tmp_path / f"blank.{kind}", [" ", ""]))
    stream = open_stream(
        write(tmp_path / f"long.{kind}", ["x", "y"]),
        over_long="skip",
        count_tokens=lambda prompts: [99] * len(prompts),
        max_tokens=77,
    )
    with pytest.raises(ValueError, match=r"no usable prompt in any of it.*2 prompts of more than 77 tokens"):
        stream.take(1)


def test_changed_files_are_reported(tmp_path, caplog):
    path = write(tmp_path / "a.txt", numbered_prompts(10))
    stream = open_stream(path, shuffle_block=3)
    stream.take(8)
    write(path, numbered_prompts(4))
    resumed = open_stream(path, shuffle_block=3)
    resumed.load_state_dict(stream.state_dict())
    assert "have changed since the run was started" in caplog.text
    assert len(resumed.take(10)) == 10
