"""Recipe files as editors save them, and Windows paths in them."""

import codecs

import pytest

from training.config import RecipeError, load_recipe

TEXT = '[teacher]\npath = "t"\n[prompts]\nsource = "shapes"\n[output]\ntitle = "naïve 猫"\n'


def explained(tmp_path, text, *overrides, **options):
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=r"1 problem\(s\)") as error:
        load_recipe(str(path), overrides, **options)
    return str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode(),
    ],
    ids=["Notepad", "PowerShell", "big endian", "CRLF"],
)
def test_files_of_windows_editors_are_read(tmp_path, data):
    (tmp_path / "mine.toml").write_bytes(data)
    assert load_recipe(str(tmp_path / "mine.toml")).output.title == "naïve 猫"


def test_other_encodings_are_refused_by_line(tmp_path):
    message = explained(tmp_path, TEXT.encode().replace("猫".encode(), b"\xe9"))
    assert "mine.toml: line 6 is not UTF-8 text" in message and "save the file as UTF-8" in message


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r'"C:\models\teacher"', r'"C:\models\teacher": in double quotes a backslash begins an escape'),  # not TOML
        (r'"C:\Users\me"', r'"C:\Users\me": in double quotes a backslash begins an escape'),
        (r'"C:\new\teacher"', "teacher.path has a line break or a tab in it"),  # TOML, but another path
        (r'"models\teacher"', "teacher.path has a line break or a tab in it"),
    ],
)
def test_windows_paths_in_double_quotes_are_explained(tmp_path, path, expected):
    message = explained(tmp_path, TEXT.replace('"t"', path), check_files=True)
    assert (
        expected in message and r"write a Windows path in single quotes, such as 'C:\new\teacher', or with /" in message
    )


@pytest.mark.parametrize("path", [r"'C:\new\teacher'", r'"C:\\new\\teacher"', '"C:/new/teacher"'])
def test_other_ways_to_write_them_are_read(tmp_path, path):
    (tmp_path / "mine.toml").write_text(TEXT.replace('"t"', path), encoding="utf-8")
    assert load_recipe(str(tmp_path / "mine.toml")).teacher.path.replace("/", "\\") == r"C:\new\teacher"


def test_the_command_line_takes_them_with_and_without_quotes():
    for typed in (r"teacher.path=C:\new\teacher", r'teacher.path="C:\new\teacher"', r"teacher.path='C:\new\teacher'"):
        assert load_recipe("shapes", [typed]).teacher.path == r"C:\new\teacher"
    assert load_recipe("shapes", ['output.title=say "hi"']).output.title == 'say "hi"'


@pytest.mark.parametrize(("typed", "meant"), [("sd16", "sd15"), ("sd22", "sd21"), ("pixar", "pixart")])
def test_the_suggested_recipe_is_the_one_that_begins_alike(typed, meant):
    with pytest.raises(RecipeError, match=f"no such recipe; did you mean {meant}\\?"):
        load_recipe(typed)
