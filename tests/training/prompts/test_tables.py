"""Tables as people save them: no prompt is cut silently at a comma, and errors name the file and the row."""

import hashlib
import json

import pytest
from prompt_files import open_stream

COMMAS = "masterpiece, 1girl, solo"


def read(path, text, **settings):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    stream = open_stream(path, shuffle_block=1, **settings)
    return list(stream.one_pass()), stream.describe()


@pytest.mark.parametrize(
    ("name", "text", "prompts", "reading"),
    [
        ("a.csv", f"prompt\n{COMMAS}\na cat\n", [COMMAS, "a cat"], "one column, 'prompt' (by the first line)"),
        ("a.csv", f'prompt\r\n"{COMMAS}"\r\n"say ""hi"""\r\n', [COMMAS, 'say "hi"'], "one column, 'prompt'"),
        ("a.csv", "words\na; b, c\td\n", ["a; b, c\td"], "one column, 'words'"),
        ("a.csv", "prompt;seed\na cat, sitting;1\n", ["a cat, sitting"], "separated by semicolon: prompt, seed"),
        ("a.csv", "\ufeffprompt;seed\r\na cat, sitting;1\r\n", ["a cat, sitting"], "separated by semicolon"),
        ("a.csv", "prompt\tseed\na cat, sitting\t1\n", ["a cat, sitting"], "separated by tab: prompt, seed"),
        ("a.csv", "sep=;\r\nprompt;seed\r\na cat, sitting;1\r\n", ["a cat, sitting"], "separated by semicolon"),
        ("a.csv", 'file,caption\na.jpg,"a red cat, on a mat"\n', ["a red cat, on a mat"], "comma: file, caption"),
        ("a.csv", 'file, caption\na.jpg, "a red cat, on a mat"\n', ["a red cat, on a mat"], "comma: file, caption"),
        ("a.csv", 'file,caption\na.jpg,"two\nlines"\n\nb.jpg,c\n', ["two\nlines", "c"], "comma: file, caption"),
        ("a.csv", '"file, name";"caption"\nx;a, b\n', ["a, b"], "semicolon: file, name, caption"),
        ("a.csv", "file;caption, in English\nx;a, b\n", ["a, b"], "semicolon"),
        ("a.tsv", "file\tcaption\nx\ta, b; c\n", ["a, b; c"], "separated by tab"),
        ("a.tsv", "prompt\na, b; c\n", ["a, b; c"], "one column"),
    ],
)
def test_every_prompt_is_read_whole_and_the_separator_is_shown(tmp_path, name, text, prompts, reading):
    column = {"column": "caption, in English"} if "in English" in text else {}
    found, lines = read(tmp_path / name, text, **column)
    assert found == prompts
    assert len(lines) == 1 and reading in lines[0] and name in lines[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,caption\na.jpg,a red cat, on a mat\n",
            r"row 1 \(line 2\) has 3 fields, but the first line has 2 \(file",
        ),
        ("prompt,seed\na cat,1\na cat, sitting on a mat,1\n", r"row 2 \(line 3\) has 3 fields.*in quotes"),
        ("prompt,seed\na cat\n", r"row 1 \(line 2\) has 1 fields"),
        ('prompt,seed\n"a\nb",1\nc,2,3\n', r"row 2 \(line 4\) has 3 fields"),
        ('prompt\n"Hello", she said\n', "line 2: text follows a closing quote"),
        ('prompt,seed\na,1\n"b,2\nc,3\n', "a quote that is opened after line 2 is not closed"),
        ("prompt,author\n1984,Orwell\n", "'prompt' holds no text; name a column with prompts.column; its columns: p"),
        ("prompt|seed\na|1\n", r"its first line, 'prompt|seed', is not separated by comma or semicolon or tab"),
        ("prompt,seed;caption\na,1;b\n", "could be separated by comma .* or semicolon"),
        ("prompt,prompt\na,b\n", "2 columns are called 'prompt'"),
        ("a cat, sitting\na dog, asleep\n", "its first line names the columns.*its columns: a cat, sitting"),
        (b"prompt,n\na,1\ncaf\xe9,2\n", r"line 3 is not UTF-8 \(byte 0xe9\): 'caf\xe9,2'; save the file as UTF-8"),
        ("prompt\na\n".encode("utf-16"), "line 1: it is UTF-16, not UTF-8; save the file as UTF-8"),
        ("prompt\na\n".encode("utf-16-le"), "line 1 has a NUL character, so it is probably UTF-16; save"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused_by_file_and_row(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"a\.csv.*{message}"):
        read(tmp_path / "a.csv", text)


def test_a_tsv_that_is_separated_by_commas_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tsv .* its first line, 'file,caption', is not separated by tab"):
        read(tmp_path / "a.tsv", "file,caption\na.jpg,a cat\n")


def test_a_first_line_that_may_be_a_prompt_is_reported(tmp_path, caplog):
    assert read(tmp_path / "a.csv", "a cat\na dog\n")[0] == ["a dog"]
    assert "a.csv: its first line, 'a cat', is taken for the column's name; if it is a prompt" in caplog.text
    caplog.clear()
    read(tmp_path / "a.csv", "caption\na dog\n")
    assert not caplog.text


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_other_encodings_are_refused_by_file_and_line(tmp_path, name):
    good, bad = {"a.txt": ("a cat", "a café"), "a.jsonl": ('{"prompt": "a"}', '{"prompt": "é"}')}.get(
        name, ('[{"prompt": "a"},', '{"prompt": "é"}]')
    )
    with pytest.raises(ValueError, match=rf"prompts .*{name} cannot be read: line 2 is not UTF-8 .*save the file as"):
        read(tmp_path / name, f"{good}\n{bad}\n".encode("latin-1"))


def test_each_table_of_a_folder_has_its_own_separator(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,n\none,1\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("n;prompt\n2;two, too\n", encoding="utf-8")
    assert list(open_stream(tmp_path, shuffle_block=1).one_pass()) == ["one", "two, too"]
    (tmp_path / "c.csv").write_text("n,caption\n3,three\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"c\.csv cannot be read: no columns are called 'prompt'; columns: n, caption"):
        open_stream(tmp_path)


def test_a_table_that_is_read_in_another_way_than_before_is_reported_on_resume(tmp_path, caplog):
    """An older version read the first field of this file; the hash of its state has the name and size alone."""
    (tmp_path / "plain.csv").write_text("prompt,n\na,1\n", encoding="utf-8")
    (tmp_path / "whole.csv").write_text(f"prompt\n{COMMAS}\n", encoding="utf-8")
    for name in ("plain.csv", "whole.csv"):
        stream = open_stream(tmp_path / name)
        state = stream.state_dict() | {"source": name_and_size(tmp_path / name)}
        caplog.clear()
        stream.load_state_dict(state)
        assert ("are read in another way now" in caplog.text) == (name == "whole.csv")


def name_and_size(path):
    return hashlib.sha256(json.dumps([(path.name, path.stat().st_size)]).encode()).hexdigest()[:16]
