"""Prompts: every kind of source, exact resume, counts, and errors that name the file."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Prompts
from training.distill.rng import generator
from training.prompts import open_prompts
from training.prompts.shapes.captions import partial_caption
from training.prompts.shapes.scene import sample_scenes
from training.prompts.shards import hub_shards
from training.prompts.stream import StreamedPrompts

KINDS = ("txt", "csv", "tsv", "jsonl", "json", "parquet")
WORDS = ["a, b", 'say "hi"', "None", "1984", "naïve café 猫", "NA", "true", "a;b"]


def write(path, prompts, column="prompt"):
    """A file of the kind that its suffix says, in which every other column is not text."""
    rows = [{"id": n, column: prompt} for n, prompt in enumerate(prompts)]
    if path.suffix == ".txt":
        path.write_text("".join(prompt + "\n" for prompt in prompts), encoding="utf-8")
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ["id", column], delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    return path


def opened(source, seed=0, *, count_tokens=None, max_tokens=None, **settings):
    section = Prompts(source=str(source), **settings)
    return open_prompts(section, seed, count_tokens=count_tokens, max_tokens=max_tokens)


def numbered(count):
    return [f"prompt {n}" for n in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_its_prompts_once_an_epoch(tmp_path, kind):
    prompts = [*WORDS, *numbered(7)]
    source = opened(write(tmp_path / f"some [1] prompts.{kind}", prompts), shuffle_block=4)
    epochs = [source.take(len(prompts)) for _ in range(6)]
    assert all(sorted(epoch) == sorted(prompts) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 6, "epochs in the same order"
    assert list(source.one_pass()) == prompts


def test_blocks_are_shuffled_and_one_means_in_order(tmp_path):
    path = write(tmp_path / "a.txt", numbered(100))
    assert opened(path, shuffle_block=1).take(250) == (numbered(100) * 3)[:250]
    shuffled = opened(path, shuffle_block=10).take(100)
    blocks = [shuffled[n : n + 10] for n in range(0, 100, 10)]
    assert all(sorted(block) == sorted(numbered(100)[10 * n : 10 * n + 10]) for n, block in enumerate(blocks))
    orders = {tuple(int(prompt.split()[1]) % 10 for prompt in block) for block in blocks}
    assert len(orders) == 10, "blocks are permuted alike"
    assert opened(path, seed=1, shuffle_block=10).take(100) != shuffled


def test_folders_and_globs_of_files(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "b.csv", numbered(5))
    write(tmp_path / "inner" / "a.csv", ["x", "y"])
    write(tmp_path / ".hidden.csv", ["never"])
    (tmp_path / "README.md").write_text("never", encoding="utf-8")
    both = sorted([*numbered(5), "x", "y"])
    for source in (tmp_path, tmp_path / "**" / "*.csv"):
        stream = opened(source, shuffle_block=3)
        epochs = [stream.take(7) for _ in range(8)]
        assert all(sorted(epoch) == both for epoch in epochs)
        assert len({epoch.index("x") < 3 for epoch in epochs}) == 2, "files always come in the same order"
    assert sorted(opened(tmp_path / "*.csv").take(5)) == numbered(5)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(any),
    block=st.integers(1, 12),
    before=st.lists(st.integers(0, 13), max_size=4),
    after=st.integers(1, 40),
    kind=st.sampled_from(["txt", "csv", "jsonl", "parquet"]),
    skip=st.booleans(),
)
def test_a_resumed_stream_goes_on_as_if_nothing_had_happened(tmp_path_factory, sizes, block, before, after, kind, skip):
    folder = tmp_path_factory.mktemp("prompts")
    for file, size in enumerate(sizes):
        write(folder / f"{file}.{kind}", ["", *[f"{file} {n}" + " long" * (n % 3 == 1) for n in range(size)]])
    section = {
        "shuffle_block": block,
        "over_long": "skip" if skip else "cut",
        "count_tokens": lambda prompts: [len(prompt.split()) for prompt in prompts],
        "max_tokens": 2,
    }
    whole, stopped = opened(folder, **section), opened(folder, **section)
    for count in before:
        assert stopped.take(count) == whole.take(count)
        state = json.loads(json.dumps(stopped.state_dict()))
        stopped = opened(folder, **section)
        stopped.load_state_dict(state)
        assert stopped.counts == whole.counts
    assert stopped.take(after) == whole.take(after)
    assert stopped.counts == whole.counts


def test_another_process_goes_on_at_the_same_place_and_nothing_is_written_at_home(tmp_path):
    write(tmp_path / "a.parquet", numbered(50))
    stream = opened(tmp_path, shuffle_block=7)
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


def test_shapes_are_the_captions_of_each_iteration(tmp_path):
    stream = opened("shapes", seed=3)
    for call, size in enumerate((8, 3, 8)):
        rng = generator(3, "prompts", call)
        assert stream.take(size) == [partial_caption(scene, rng)[0] for scene in sample_scenes(size, rng)]
    resumed = opened("shapes", seed=3)
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert resumed.take(4) == stream.take(4)
    assert stream.counts["given"] == 23


def test_what_is_no_prompt_is_left_out_and_counted(tmp_path):
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
    stream = opened(path, shuffle_block=1)
    assert stream.take(2) == ["a cat", "a dog"], "stripped, and without half a surrogate pair"
    assert stream.counts == {"given": 2, "empty": 5, "over-long": 0, "epochs": 0}
    stream.take(2)
    assert stream.counts == {"given": 4, "empty": 10, "over-long": 0, "epochs": 1}


@pytest.mark.parametrize("over_long, expected", [("cut", numbered(4)), ("skip", ["prompt 0", "prompt 2"])])
def test_over_long_prompts_are_cut_or_left_out_and_counted(tmp_path, over_long, expected):
    path = write(tmp_path / "a.txt", numbered(4))
    stream = opened(
        path,
        over_long=over_long,
        shuffle_block=1,
        count_tokens=lambda prompts: [77 + int(prompt[-1]) % 2 for prompt in prompts],
        max_tokens=77,
    )
    assert stream.take(2 * len(expected)) == expected * 2
    assert stream.counts["over-long"] == (4 if over_long == "cut" else 3)


def test_a_mark_of_windows_and_its_line_ends_are_no_part_of_a_prompt(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    (tmp_path / "a.csv").write_bytes("\ufeffprompt,n\r\none,1\r\ntwo,2\r\n".encode())
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"prompt": "one"}\r\n{"prompt": "two"}\r\n'.encode())
    for path in tmp_path.iterdir():
        assert opened(path, shuffle_block=1).take(2) == ["one", "two"], path.name


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("column", ["prompt", "caption", "text", "words"])
def test_a_column_is_found_or_named(tmp_path, kind, column):
    path = write(tmp_path / f"a.{kind}", ["x", "y"], column)
    assert opened(path, shuffle_block=1).take(2) == ["x", "y"]
    assert opened(path, shuffle_block=1, column=column).take(2) == ["x", "y"]
    with pytest.raises(ValueError, match=rf"has no column 'nothing'; its columns: id, {column}"):
        opened(path, column="nothing")


def test_which_column_is_meant_is_asked_where_it_is_not_plain(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": ["a"], "url": ["b"], "n": [1]}), path)
    with pytest.raises(ValueError, match=r"2 columns hold text.*prompts\.column; its columns: title, url, n"):
        opened(path)
    assert opened(path, column="title").take(1) == ["a"]
    pq.write_table(pa.table({"text": ["a"], "caption": ["b"]}), path)
    assert opened(path).take(1) == ["b"]
    with pytest.raises(ValueError, match="no columns hold text"):
        opened(write(tmp_path / "b.parquet", [1, 2]))


def test_nothing_there_is_said_with_what_is_possible(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no prompts at 'nowhere\.txt': looked for .*nowhere\.txt; possible"):
        opened("nowhere.txt")
    with pytest.raises(FileNotFoundError, match=r"no prompts match 'no\*\.csv'"):
        opened("no*.csv")
    with pytest.raises(FileNotFoundError, match=r"there is no such file or folder, and the data set.*Possible sources"):
        opened("nobody/nothing")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "notes.md").write_text("x", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"expected \.txt, .*it has notes\.md"):
        opened("some")
    write(tmp_path / "some" / "a.txt", ["x"])
    write(tmp_path / "some" / "b.csv", ["x"])
    with pytest.raises(ValueError, match=r"several kinds \(\.csv, \.txt\).*some/\*\*/\*\.csv"):
        opened("some")
    with pytest.raises(ValueError, match=r"unknown file extension .\.md"):
        opened("some/notes.md")


BROKEN = {
    "latin.txt": b"caf\xe9\n",
    "nul.csv": b"id,prompt\n1,\xff\xfe\n",
    "fields.csv": b"id,prompt\n1,a\n2,b,c,d\n",
    "quote.csv": b'id,prompt\n1,a\n2,"b\n',
    "cut.jsonl": b'{"prompt": "a"}\n{"prom',
    "list.jsonl": b'["a"]\n',
    "cut.json": b'[{"prompt": "a"}, {"prom',
    "magic.parquet": b"PAR1 and no more",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(ValueError, match=rf"prompts .*{name} cannot be read: "):
        opened(tmp_path / name)


def test_a_file_that_is_broken_further_down_is_named_when_it_is_read(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.jsonl", numbered(5))
    with open(tmp_path / "b.jsonl", "a", encoding="utf-8") as file:
        file.write("oops\n")
    stream = opened(tmp_path, shuffle_block=1)
    assert len(stream.take(10)) == 10
    with pytest.raises(ValueError, match=r"b\.jsonl cannot be read: a line is not valid JSON.*'oops'"):
        stream.take(1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_at_all_is_an_error_and_not_an_endless_loop(tmp_path, kind):
    empty = tmp_path / f"empty.{kind}"
    empty.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"empty\.{kind} is empty \(0 bytes\)"):
        opened(empty)
    if kind != "json":  # an empty list has no columns
        with pytest.raises(ValueError, match=rf"blank\.{kind}.*no usable prompt in any of it \(2 rows without text\)"):
            opened(write(tmp_path / f"blank.{kind}", [" ", ""]))
    stream = opened(
        write(tmp_path / f"long.{kind}", ["x", "y"]),
        over_long="skip",
        count_tokens=lambda prompts: [99] * len(prompts),
        max_tokens=77,
    )
    with pytest.raises(ValueError, match=r"no usable prompt in any of it.*2 prompts of more than 77 tokens"):
        stream.take(1)


def test_files_that_changed_since_are_told(tmp_path, caplog):
    path = write(tmp_path / "a.txt", numbered(10))
    stream = opened(path, shuffle_block=3)
    stream.take(8)
    write(path, numbered(4))
    resumed = opened(path, shuffle_block=3)
    resumed.load_state_dict(stream.state_dict())
    assert "have changed since the run was started" in caplog.text
    assert len(resumed.take(10)) == 10


def test_a_hub_data_set_is_streamed_shard_by_shard(tmp_path):
    """From a folder, which the same call of the library opens; a column of pictures is not decoded."""
    features = Features({"picture": Image(), "prompt": Value("string"), "tags": List(Value("string"))})
    for shard in range(3):
        rows = [
            {"picture": {"bytes": b"no picture", "path": None}, "prompt": f"{shard} {n}", "tags": ["x"]}
            for n in range(4)
        ]
        table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
        pq.write_table(table, tmp_path / f"train-{shard}.parquet")
    shards = hub_shards(str(tmp_path), "train", "")
    assert [shard.name for shard in shards] == [f"{tmp_path}, shard {n} of 3" for n in range(3)]
    stream = StreamedPrompts(shards, seed=0, block=5)
    given = stream.take(12)
    assert sorted(given) == sorted(f"{shard} {n}" for shard in range(3) for n in range(4))
    state = stream.state_dict()
    more = stream.take(9)
    resumed = StreamedPrompts(hub_shards(str(tmp_path), "train", "prompt"), seed=0, block=5)
    resumed.load_state_dict(state)
    assert resumed.take(9) == more
    with pytest.raises(FileNotFoundError, match=r"split 'test', cannot be read: .*train"):
        hub_shards(str(tmp_path), "test", "")
    with pytest.raises(ValueError, match="its columns: picture, prompt, tags"):
        hub_shards(str(tmp_path), "train", "caption")
