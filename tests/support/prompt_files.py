"""Files of prompts of every kind, and streams of them."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq

from training.config import Prompts
from training.prompts import open_prompts

KINDS = ("txt", "csv", "tsv", "jsonl", "json", "parquet")


def write(path, prompts, column="prompt"):
    """Write a file of the kind given by its suffix; its other column holds numbers."""
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


def open_stream(source, seed=0, *, count_tokens=None, max_tokens=None, **settings):
    section = Prompts(source=str(source), **settings)
    return open_prompts(section, seed, count_tokens=count_tokens, max_tokens=max_tokens)


def numbered_prompts(count):
    return [f"prompt {n}" for n in range(count)]
