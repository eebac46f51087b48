"""Tables of cells, .csv and .tsv: separated by comma, semicolon or tab, with the columns' names in the first line.

A row that does not fit the first line is an error: an unquoted comma in a prompt would otherwise cut it silently. A
file of one column needs no quotes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from training.prompts.text_files import read_lines

_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}
_NONE = "\x1f"  # a separator that no text has, for files of one column
_BOOLEANS = ("true", "false")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table and how it is read. separator: one of `_NAMES`, or `_NONE`. lines_before: above the columns' names."""

    path: Path
    separator: str
    columns: tuple[str, ...]
    lines_before: int = 0

    @property
    def reading(self) -> str:
        """For people: how the file is read."""
        if self.separator == _NONE:
            return f"one column, {self.columns[0]!r} (by the first line), read whole"
        return f"columns separated by {_NAMES[self.separator]}: {', '.join(self.columns)}"

    @property
    def is_plain(self) -> bool:
        """Whether it is separated as its suffix says: by comma, or .tsv by tab."""
        return self.separator == ("\t" if self.path.suffix.lower() == ".tsv" else ",") and not self.lines_before

    def rows(self, start: int = 0) -> Iterator[list[str]]:
        """The rows from number `start` on; blank lines are not rows.

        Raises:
            ValueError: a row does not fit the columns, or quotes do not match; the message has its line.
        """
        rows = _records(self.path, self.separator, self.lines_before)
        next(rows)  # the names
        for number, (line, row) in enumerate(rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} (line {line}) has {len(row)} fields, but the first line has {len(self.columns)} "
                    f"({', '.join(self.columns)}), separated by {_NAMES.get(self.separator, 'nothing')}: "
                    f'{self.separator.join(row)[:100]!r}. Put text with such a character in quotes, as in "a red cat, '
                    'on a mat", or give a .txt file with one prompt a line'
                )
            if number > start:
                yield row

    def text_columns(self, sample: int) -> Mapping[str, bool]:
        """Every column, and whether it has something else than numbers in the first rows."""
        rows = list(islice(self.rows(), sample))
        return {name: not rows or any(not _is_number(row[n]) for row in rows) for n, name in enumerate(self.columns)}

    def cells(self, column: str, start: int = 0) -> Iterator[str]:
        """The cells of a column from row `start` on.

        Raises:
            ValueError: as `rows`; or the name is not that of one column.
        """
        if (count := self.columns.count(column)) != 1:
            raise ValueError(f"{count or 'no'} columns are called {column!r}; columns: {', '.join(self.columns)}")
        number = self.columns.index(column)
        return (row[number] for row in self.rows(start))


def open_table(path: Path, wanted: tuple[str, ...]) -> Table:
    """A table, separated as its first line is.

    Args:
        wanted: names of columns that decide if the first line could be separated in several ways.

    Raises:
        ValueError: it is not UTF-8, has no line, or can be separated in several ways.
    """
    lines_before, separators = 0, ["\t"] if path.suffix.lower() == ".tsv" else list(_NAMES)
    first = next(read_lines(path), "").strip()
    if first.lower().startswith("sep=") and first[4:] in _NAMES:  # Excel's own mark
        lines_before, separators = 1, [first[4:]]
    several: dict[str, tuple[str, ...]] = {}
    for separator in separators:
        with suppress(ValueError):  # of quotes that are right with another separator
            if len(names := _names(path, separator, lines_before)) > 1:
                several[separator] = names
    if len(several) > 1:
        several = {separator: names for separator, names in several.items() if set(wanted) & set(names)} or several
    if len(several) > 1:
        ways = " or ".join(f"{_NAMES[separator]} ({', '.join(names)})" for separator, names in several.items())
        raise ValueError(f"its first line could be separated by {ways}; put a name with such a character in quotes")
    for separator, names in several.items():
        return Table(path=path, separator=separator, columns=names, lines_before=lines_before)
    columns = _names(path, _NONE, lines_before)
    if set(wanted) & set(map(str.strip, re.split(r"[,;|:\t]", columns[0]))) and columns[0] not in wanted:
        tried = " or ".join(_NAMES[separator] for separator in separators)
        raise ValueError(
            f"its first line, {columns[0]!r}, is not separated by {tried}; save the file as .csv, separated by comma, "
            "semicolon or tab"
        )
    return Table(path=path, separator=_NONE, columns=columns, lines_before=lines_before)


def _names(path: Path, separator: str, lines_before: int) -> tuple[str, ...]:
    for _, names in _records(path, separator, lines_before):
        return tuple(name.strip() for name in names)
    raise ValueError("it has no line with the columns' names")


def _records(path: Path, separator: str, lines_before: int) -> Iterator[tuple[int, list[str]]]:
    """(number of the last line, cells) of each record that is not blank."""
    lines = read_lines(path, lines_before, newline="")
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    last = lines_before
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = lines_before + reader.line_num
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise ValueError(
                    f"a quote that is opened after line {last} is not closed within {csv.field_size_limit():,} "
                    "characters, or never; write each quote inside of quotes twice"
                ) from error
            raise ValueError(
                f"line {line}: text follows a closing quote; put the whole text in quotes, and write each quote in it "
                'twice: """Hello"", she said"'
            ) from error
        last = lines_before + reader.line_num
        if len(row) > 1 or (row and row[0].strip()):
            yield last, row


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lower() in _BOOLEANS
    return True
