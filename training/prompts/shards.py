"""Find the prompts of files, folders, globs and data sets on the hub, as shards that are read row by row.

Each shard (a file, or a shard of a data set) is read on its own, so errors can name it and the reader chooses the order
of shards. Text and tables are read by text_files.py and tables.py, the rest by the datasets library.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import IterableDataset, load_dataset
from datasets.exceptions import DatasetsError

from training.config.sources import ROOT, find_file, looks_like_hub_id
from training.prompts.tables import open_table
from training.prompts.text_files import json_line, not_utf8, read_lines

log = logging.getLogger(__name__)
KINDS = {".txt": "text", ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}
COLUMNS = ("prompt", "caption", "text")  # tried in this order if no column is named
POSSIBLE = (
    f'"shapes", "avatars", a {", ".join(KINDS)} file, a folder or glob of files of one kind, or a hub data set '
    "(owner/name)"
)

# What the datasets library raises for broken or missing files.
READ_ERRORS = (ValueError, TypeError, LookupError, OSError, RuntimeError, DatasetsError)
_SAMPLE = 100  # rows that are searched for columns with text if there is no schema
_ROWS = 1000  # read at once
_STRINGS = ("string", "large_string", "string_view")
Reader = Callable[[int], Iterator[Any]]  # the cells of the prompt column, from a row on


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a source, read in order.

    name: for messages. size: bytes of a file, to notice changes; 0 if unknown. cells: reads the prompt column.
    reading: how it is read, for people. changed: whether an earlier version of this program read it differently.
    """

    name: str
    size: int = 0
    cells: Reader
    reading: str = ""
    changed: bool = False

    def read(self, start: int = 0) -> Iterator[Any]:
        """The content of the prompt column, row by row from row `start`; not all of it need be text.

        Raises:
            ValueError: the shard cannot be read.
        """
        try:
            yield from self.cells(start)
        except READ_ERRORS as error:
            raise ValueError(f"prompts {self.name} cannot be read: {error}") from error


def find_shards(source: str, *, column: str = "", split: str = "train") -> list[Shard]:
    """The shards of a source, in the order of their names.

    Args:
        column: of a table; empty = prompt, caption, text, or the only one with text.
        split: of a hub data set.

    Raises:
        FileNotFoundError, ValueError: as `open_prompts`.
    """
    files = _find_files(source)
    if not files:
        return hub_shards(source, split, column)
    kind = KINDS[files[0].suffix.lower()]
    if kind == "csv":
        return _table_shards(files, column)
    if kind == "text":
        if column not in ("", "text"):
            raise ValueError(f"prompts.column is {column!r}, but {files[0]} has no columns: it is one prompt a line")
        return [_shard(path, partial(read_lines, path), "one prompt a line") for path in files]
    with _naming(files[0]):
        rows = map(json_line, read_lines(files[0])) if kind == "jsonl" else _open_file(files[0])
        column = _column(column, _columns_with_text(rows), str(files[0]))
    if kind == "jsonl":
        return [_shard(path, partial(_json_cells, path, column), f"JSON lines, {column!r}") for path in files]
    return [_shard(path, partial(_cells, partial(_open_file, path, column), column), repr(column)) for path in files]


def _shard(path: Path, cells: Reader, reading: str, *, changed: bool = False) -> Shard:
    return Shard(name=str(path), size=path.stat().st_size, cells=cells, reading=reading, changed=changed)


def _table_shards(files: list[Path], column: str) -> list[Shard]:
    shards: list[Shard] = []
    for path in files:
        with _naming(path):
            table = open_table(path, (column,) if column else COLUMNS)
            if not shards:
                if not column and len(table.columns) == 1 and table.columns[0] not in COLUMNS:
                    log.warning(
                        "%s: its first line, %r, is taken for the column's name; if it is a prompt, write the line "
                        "prompt above it",
                        *(path, table.columns[0]),
                    )
                column = _column(column, table.text_columns(_SAMPLE), f"{path} (its first line names the columns)")
            cells = partial(table.cells, column)
            cells()  # checks that the column is there
        changed = not table.is_plain
        shards.append(_shard(path, cells, f"{table.reading}; prompts in {column!r}", changed=changed))
    return shards


class _Unclear(ValueError):
    """The column of the prompts is not clear; the message names the file."""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors that name the file."""
    try:
        yield
    except _Unclear:
        raise
    except READ_ERRORS as error:
        text = KINDS[path.suffix.lower()] == "json"
        raise ValueError(f"prompts {path} cannot be read: {(text and not_utf8(path)) or error}") from error


def hub_shards(source: str, split: str, column: str) -> list[Shard]:
    """The shards of a data set on the hub, `owner/name` or `owner/name:configuration`; rows are streamed.

    Raises:
        FileNotFoundError: the data set or split cannot be read.
        ValueError: no column of prompts is found.
    """
    path, _, configuration = source.partition(":")
    try:
        with TemporaryDirectory() as cache:  # for the library's lock files; streamed rows are not stored
            rows = load_dataset(path, configuration or None, split=split, streaming=True, cache_dir=cache)
    except READ_ERRORS as error:
        raise FileNotFoundError(
            f"no prompts at {source!r}: there is no such file or folder, and the data set of that name on the hub, "
            f"split {split!r}, cannot be read: {error}. Possible sources: {POSSIBLE}"
        ) from error
    try:
        columns = _columns_with_text(rows)
    except READ_ERRORS as error:
        raise ValueError(f"prompts {source} cannot be read: {error}") from error
    column = _column(column, columns, source)
    rows = rows.select_columns([column])  # other columns, such as images, are not decoded
    return [
        Shard(
            name=f"{source}, shard {index} of {rows.num_shards}",
            cells=partial(_cells, partial(rows.shard, num_shards=rows.num_shards, index=index), column),
            reading=repr(column),
        )
        for index in range(rows.num_shards)
    ]


def _find_files(source: str) -> list[Path]:
    """Files of one kind, sorted; none if `source` looks like a hub id."""
    path = find_file(source)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = _known(path.rglob("*"))
        if not files:
            held = ", ".join(sorted(entry.name for entry in islice(path.iterdir(), 5))) or "nothing"
            raise FileNotFoundError(
                f"no prompts in folder {source!r}: expected {', '.join(KINDS)} files; it has {held}"
            )
    elif glob.has_magic(source):
        matches = glob.glob(os.path.expanduser(source), recursive=True) or glob.glob(str(ROOT / source), recursive=True)
        files = _known(map(Path, matches))
        if not files:
            raise FileNotFoundError(f"no prompts match {source!r}: expected {', '.join(KINDS)} files")
    elif looks_like_hub_id(source) and path.suffix.lower() not in KINDS:
        return []
    else:
        raise FileNotFoundError(f"no prompts at {source!r}: looked for {path.absolute()}; possible sources: {POSSIBLE}")
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"{source!r} holds {len(files)} files of several kinds ({', '.join(kinds)}), and not all may be prompts; "
            f"select some with a glob, such as {Path(source) / '**' / f'*{kinds[0]}'}"
        )
    if kinds[0] not in KINDS:
        raise ValueError(f"prompts {source!r}: unknown file extension {kinds[0]!r}; possible sources: {POSSIBLE}")
    if empty := [file for file in files if not file.stat().st_size]:
        raise ValueError(f"prompts {empty[0]} is empty (0 bytes)")
    return files


def _known(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in KINDS and p.is_file() and not p.name.startswith("."))


def _open_file(path: Path, column: str = "") -> IterableDataset:
    """The rows of a .json or .parquet file. With `column`, only that one is read if the format allows it."""
    name = glob.escape(str(path.absolute()))
    with TemporaryDirectory() as cache:  # for the library's lock files; nothing is copied when streaming
        if KINDS[path.suffix.lower()] == "json":
            return IterableDataset.from_json(name, cache_dir=cache)
        return IterableDataset.from_parquet(name, columns=[column] if column else None, cache_dir=cache)


def _cells(opened: Callable[[], IterableDataset], column: str, start: int = 0) -> Iterator[Any]:
    # Tables, because single rows are slow. `skip` instead of the library's state_dict, which counts tables and has
    # changed its meaning between versions; both parse a shard from its beginning.
    rows = opened()
    rows = rows.skip(start) if start else rows
    for table in rows.with_format("arrow").iter(batch_size=_ROWS):
        yield from table[column].to_pylist()


def _json_cells(path: Path, key: str, start: int = 0) -> Iterator[Any]:
    others: dict[str, None] = {}
    found = start > 0  # then the file has been read to its end before
    for line in read_lines(path, start):
        row = json_line(line)
        found = found or key in row
        if not found:
            others |= dict.fromkeys(row)
        yield row.get(key)
    if others and not found:
        raise ValueError(f"no line has {key!r}, by which the prompts are read; its lines have {', '.join(others)}")


def _column(named: str, columns: Mapping[str, bool], where: str) -> str:
    """The named column, or the one that holds prompts, of `columns` and whether each holds text.

    Raises:
        ValueError: there is none.
    """
    listed = ", ".join(columns) or "none"
    if named:
        if named not in columns:
            raise _Unclear(f"prompts.column: {where} has no column {named!r}; its columns: {listed}")
        return named
    text = [name for name, holds_text in columns.items() if holds_text]
    if found := [name for name in COLUMNS if name in text]:
        return found[0]
    if text and (found := [name for name in COLUMNS if name in columns]):  # the text may be names of files
        raise _Unclear(f"{where}: {found[0]!r} holds no text; name a column with prompts.column; its columns: {listed}")
    if len(text) == 1:
        return text[0]
    raise _Unclear(
        f"{where}: {len(text) or 'no'} columns hold text, and none of them is called {', '.join(COLUMNS)}; "
        f"name one with prompts.column; its columns: {listed}"
    )


def _columns_with_text(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, bool]:
    """Every column, and whether it holds text, by the schema or else by the first rows."""
    if (features := getattr(rows, "features", None)) is not None:
        return {name: getattr(kind, "dtype", None) in _STRINGS for name, kind in features.items()}
    columns: dict[str, bool] = {}
    for row in islice(rows, _SAMPLE):
        for name, value in row.items():
            columns[name] = columns.get(name, False) or isinstance(value, str)
    return columns
