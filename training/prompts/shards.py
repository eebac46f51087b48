"""Find the prompts of files, folders, globs and data sets on the hub, as shards that are read row by row.

Each shard (a file, or a shard of a data set) is an IterableDataset of its own, so errors can name it and the reader
chooses the order of shards.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Features, IterableDataset, Value, load_dataset
from datasets.exceptions import DatasetsError

from training.config import Prompts
from training.config.sources import ROOT, find_file, looks_like_hub_id

KINDS = {".txt": "text", ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}
COLUMNS = ("prompt", "caption", "text")  # tried in this order if no column is named
POSSIBLE = f'"shapes", a {", ".join(KINDS)} file, a folder or glob of files of one kind, or a hub data set (owner/name)'

# What the datasets library raises for broken or missing files.
READ_ERRORS = (ValueError, TypeError, LookupError, OSError, RuntimeError, DatasetsError)
_SAMPLE = 100  # rows that are searched for columns with text if there is no schema
_ROWS = 1000  # read at once
_STRINGS = ("string", "large_string", "string_view")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a source, read in order.

    name: for messages. size: bytes of a file, to notice changes; 0 if unknown. open: returns its rows. column: the
    column with the prompts. prompt: extracts the prompt from a cell of that column.
    """

    name: str
    size: int = 0
    open: Callable[[], IterableDataset]
    column: str
    prompt: Callable[[Any], Any] = lambda cell: cell

    def read(self, start: int = 0) -> Iterator[Any]:
        """The content of the prompt column, row by row from row `start`; not all of it need be text.

        Raises:
            ValueError: the shard cannot be read.
        """
        try:
            # Tables, because single rows are slow. `skip` instead of the library's state_dict, which counts tables and
            # has changed its meaning between versions; both parse a shard from its beginning.
            rows = self.open()
            rows = rows.skip(start) if start else rows
            for table in rows.with_format("arrow").iter(batch_size=_ROWS):
                yield from map(self.prompt, table[self.column].to_pylist())
        except READ_ERRORS as error:
            raise ValueError(f"prompts {self.name} cannot be read: {error}") from error


def find_shards(section: Prompts) -> list[Shard]:
    """The shards of a recipe's source, in the order of their names. Raises: as `open_prompts`."""
    files = _find_files(section.source)
    if not files:
        return hub_shards(section.source, section.split, section.column)
    first = partial(_open_file, files[0])
    if KINDS[files[0].suffix.lower()] != "jsonl":
        column = _column(section.column, first, str(files[0]))
        parts = {"column": column}
    else:
        key = _column(section.column, first, str(files[0]), lambda row: _json_line(row["text"]))
        column, parts = "", {"column": "text", "prompt": lambda line: _json_line(line).get(key)}
    return [
        Shard(name=str(path), size=path.stat().st_size, open=partial(_open_file, path, column), **parts)
        for path in files
    ]


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
    column = _column(column, lambda: rows, source)
    rows = rows.select_columns([column])  # other columns, such as images, are not decoded
    return [
        Shard(
            name=f"{source}, shard {index} of {rows.num_shards}",
            open=partial(rows.shard, num_shards=rows.num_shards, index=index),
            column=column,
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
    """The rows of a file. With `column`, only that one is read if the format allows it, and .csv cells are text."""
    suffix = path.suffix.lower()
    kind, name = KINDS[suffix], glob.escape(str(path.absolute()))
    # With or without the byte order mark that Windows programs write.
    text = {"encoding": "utf-8-sig"}
    with TemporaryDirectory() as cache:  # for the library's lock files; nothing is copied when streaming
        if kind == "csv":
            # A prompt may be "None", "NA" or a number.
            options = {"sep": "\t" if suffix == ".tsv" else ",", "keep_default_na": False, "cache_dir": cache}
            if column:
                options |= {"usecols": [column], "features": Features({column: Value("string")})}
            return IterableDataset.from_csv(name, **text, **options)
        if kind == "json":
            return IterableDataset.from_json(name, cache_dir=cache)
        if kind == "parquet":
            return IterableDataset.from_parquet(name, columns=[column] if column else None, cache_dir=cache)
        return IterableDataset.from_text(name, **text, cache_dir=cache)


def _json_line(line: str) -> Row:
    """Parse a line of a .jsonl file, which is read as text because its lines may have different keys and types."""
    if not line.strip():
        return {}
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"a line is not valid JSON, {error}: {line[:100]!r}") from error
    if not isinstance(content, dict):
        raise ValueError(f'a line is not a JSON object such as {{"prompt": "a cat"}}: {line[:100]!r}')
    return content


def _column(named: str, opened: Callable[[], IterableDataset], where: str, decode: Callable[[Row], Row] = dict) -> str:
    """The named column, or the one that holds prompts. Raises: ValueError, if there is none."""
    try:
        columns = _columns_with_text(opened(), decode)
    except READ_ERRORS as error:
        raise ValueError(f"prompts {where} cannot be read: {error}") from error
    listed = ", ".join(columns) or "none"
    if named:
        if named not in columns:
            raise ValueError(f"prompts.column: {where} has no column {named!r}; its columns: {listed}")
        return named
    text = [name for name, holds_text in columns.items() if holds_text]
    if found := [name for name in COLUMNS if name in text]:
        return found[0]
    if len(text) == 1:
        return text[0]
    raise ValueError(
        f"{where}: {len(text) or 'no'} columns hold text, and none of them is called {', '.join(COLUMNS)}; "
        f"name one with prompts.column; its columns: {listed}"
    )


def _columns_with_text(rows: IterableDataset, decode: Callable[[Row], Row]) -> Mapping[str, bool]:
    """Every column, and whether it holds text, by the schema or else by the first rows."""
    if rows.features is not None:
        return {name: getattr(kind, "dtype", None) in _STRINGS for name, kind in rows.features.items()}
    columns: dict[str, bool] = {}
    for row in islice(rows, _SAMPLE):
        for name, value in decode(row).items():
            columns[name] = columns.get(name, False) or isinstance(value, str)
    return columns
