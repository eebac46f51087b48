"""Sources of prompts: every kind of file, columns, data sets of the hub, and errors that name the file."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, List, Value
from prompt_files import KINDS, numbered_prompts, open_stream, write

from training.prompts.shards import hub_shards
from training.prompts.stream import StreamedPrompts

WORDS = ["a, b", 'say "hi"', "None", "1984", "naïve café 猫", "NA", "true", "a;b"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_yields_its_prompts_once_per_epoch(tmp_path, kind):
    prompts = [*WORDS, *numbered_prompts(7)]
    source = open_stream(write(tmp_path / f"some [1] prompts.{kind}", prompts), shuffle_block=4)
    epochs = [source.take(len(prompts)) for _ in range(6)]
    assert all(sorted(epoch) == sorted(prompts) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 6, "epochs in the same order"
    assert list(source.one_pass()) == prompts


def test_folders_and_globs_of_files(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "b.csv", numbered_prompts(5))
    write(tmp_path / "inner" / "a.csv", ["x", "y"])
    write(tmp_path / ".hidden.csv", ["never"])
    (tmp_path / "README.md").write_text("never", encoding="utf-8")
    both = sorted([*numbered_prompts(5), "x", "y"])
    for source in (tmp_path, tmp_path / "**" / "*.csv"):
        stream = open_stream(source, shuffle_block=3)
        epochs = [stream.take(7) for _ in range(8)]
        assert all(sorted(epoch) == both for epoch in epochs)
        assert len({epoch.index("x") < 3 for epoch in epochs}) == 2, "files always come in the same order"
    assert sorted(open_stream(tmp_path / "*.csv").take(5)) == numbered_prompts(5)


def test_byte_order_marks_and_windows_line_ends_are_removed(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    (tmp_path / "a.csv").write_bytes("\ufeffprompt,n\r\none,1\r\ntwo,2\r\n".encode())
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"prompt": "one"}\r\n{"prompt": "two"}\r\n'.encode())
    (tmp_path / "a.json").write_bytes('\ufeff[{"prompt": "one"},\r\n{"prompt": "two"}]'.encode())
    for path in tmp_path.iterdir():
        assert open_stream(path, shuffle_block=1).take(2) == ["one", "two"], path.name


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("column", ["prompt", "caption", "text", "words"])
def test_a_column_is_found_or_named(tmp_path, kind, column):
    path = write(tmp_path / f"a.{kind}", ["x", "y"], column)
    assert open_stream(path, shuffle_block=1).take(2) == ["x", "y"]
    assert open_stream(path, shuffle_block=1, column=column).take(2) == ["x", "y"]
    with pytest.raises(ValueError, match=rf"has no column 'nothing'; its columns: id, {column}"):
        open_stream(path, column="nothing")


def test_an_ambiguous_column_must_be_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": ["a"], "url": ["b"], "n": [1]}), path)
    with pytest.raises(ValueError, match=r"2 columns hold text.*prompts\.column; its columns: title, url, n"):
        open_stream(path)
    assert open_stream(path, column="title").take(1) == ["a"]
    pq.write_table(pa.table({"text": ["a"], "caption": ["b"]}), path)
    assert open_stream(path).take(1) == ["b"]
    with pytest.raises(ValueError, match="no columns hold text"):
        open_stream(write(tmp_path / "b.parquet", [1, 2]))


def test_no_other_column_is_taken_if_the_one_of_prompts_holds_no_text(tmp_path):
    """Each picture has a list of captions and the name of a file: training on the names would be silent."""
    pq.write_table(pa.table({"caption": [["a", "b"]], "file": ["1.jpg"]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"caption": ["a", "b"], "file": "1.jpg"}\n', encoding="utf-8")
    for name in ("a.parquet", "a.jsonl"):
        with pytest.raises(ValueError, match=r"'caption' holds no text; name a column .*; its columns: caption, file"):
            open_stream(tmp_path / name)
        assert open_stream(tmp_path / name, column="file").take(1) == ["1.jpg"]


@pytest.mark.parametrize("block", [0, 2])
def test_a_json_lines_file_without_the_key_of_the_others_is_refused(tmp_path, block):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"prompt": "x"}\n', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('\n{"caption": "y", "id": 2}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.jsonl cannot be read: no line has 'prompt', .* lines have caption, id"):
        open_stream(tmp_path, shuffle_block=block).take(4)


def test_a_missing_source_is_reported_with_the_possible_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no prompts at 'nowhere\.txt': looked for .*nowhere\.txt; possible"):
        open_stream("nowhere.txt")
    with pytest.raises(FileNotFoundError, match=r"no prompts match 'no\*\.csv'"):
        open_stream("no*.csv")
    with pytest.raises(FileNotFoundError, match=r"there is no such file or folder, and the data set.*Possible sources"):
        open_stream("nobody/nothing")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "notes.md").write_text("x", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"expected \.txt, .*it has notes\.md"):
        open_stream("some")
    write(tmp_path / "some" / "a.txt", ["x"])
    write(tmp_path / "some" / "b.csv", ["x"])
    with pytest.raises(ValueError, match=r"several kinds \(\.csv, \.txt\).*some/\*\*/\*\.csv"):
        open_stream("some")
    with pytest.raises(ValueError, match=r"unknown file extension .\.md"):
        open_stream("some/notes.md")


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
        open_stream(tmp_path / name)


def test_a_file_damaged_in_the_middle_is_named_while_reading(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.jsonl", numbered_prompts(5))
    with open(tmp_path / "b.jsonl", "a", encoding="utf-8") as file:
        file.write("oops\n")
    stream = open_stream(tmp_path, shuffle_block=1)
    assert len(stream.take(10)) == 10
    with pytest.raises(ValueError, match=r"b\.jsonl cannot be read: a line is not valid JSON.*'oops'"):
        stream.take(1)


def test_a_hub_data_set_is_streamed_shard_by_shard(tmp_path):
    """From a folder, which the library opens by the same call; a column of pictures is not decoded."""
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
