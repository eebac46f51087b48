"""README's numbers equal those of the generated pages, and it names every node."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import re
from statistics import fmean
from typing import Any

import pytest
from live_pack import ROOT

Row = dict[str, str]
# Row names of README's table: those of docs/COMPATIBILITY.md, and the networks measured in benchmarks/RESULTS.md.
COSTS = {"UNet SD1.5": "SD1.5", "UNet SDXL": "SDXL", "PixArt-alpha 512": "PixArt-alpha"}
ERRORS = {"relative error", "relative error, cfg 1"}
ABSENT = "not in this version"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tables(markdown: str) -> list[list[Row]]:
    """Every table, as rows by column title; for repeated titles, the first column."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", markdown, re.M):
        head, _, *rows = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines())
        found.append([dict(reversed([*zip(head, row, strict=True)])) for row in rows])
    return found


def table_of(markdown: str, *columns: str) -> list[Row]:
    (found,) = (table for table in tables(markdown) if table and set(columns) <= set(table[0]))
    return found


@pytest.fixture(scope="module")
def supported() -> dict[str, Row]:
    return {row["network"]: row for row in table_of(read("README.md"), "network", "relative error, cfg 1")}


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, Row]]:
    """By network, then by case. SDXL's time was measured a second time, with more rounds and without CFG."""
    sections = re.findall(r"^### ([^,\n]+), latent.*?$(.*?)(?=^#|\Z)", read("benchmarks/RESULTS.md"), re.M | re.S)
    found: dict[str, dict[str, Row]] = {}
    for name, text in sections:
        found.setdefault(name, {}).update({row["case"]: row for row in tables(text)[0]})
    return found


def test_the_errors_are_the_measured_ones(supported: dict[str, Row]) -> None:
    page = read("docs/COMPATIBILITY.md")
    families = page[page.index("## Families") :]
    rows = tables(families)[0]
    measured = {
        row["what"]: max((row[host] for host in ("0.16.3", "0.30.0") if row[host] != ABSENT), key=float)
        for row in rows
        if row["measured"] in ERRORS
    }
    assert set(supported) == set(COSTS)
    shown = {name: row["relative error, cfg 1"] for name, row in supported.items()}
    assert shown == {name: measured[name] for name in COSTS}


def ratio(cell: str) -> str:
    """The median, without the span."""
    return cell.split()[0]


def test_costs_equal_the_measured_ones(supported: dict[str, Row], costs: dict[str, Any]) -> None:
    time, guided, work = "time of a step, NASA / plain", "CFG / plain", "FLOPs, NASA / plain"
    for name, row in supported.items():
        if name not in COSTS:
            assert row[time] == row[guided] == row[work] == "", name
            continue
        cases = costs[COSTS[name]]
        column = next(key for key in cases["NASA"] if key.startswith("time / plain"))
        assert row[time] == ratio(cases["NASA"][column])
        assert row[guided] == ratio(cases["CFG 2"][column])
        assert row[work] == cases["NASA"]["FLOPs / plain"]


def test_the_help_pages_have_the_same_percentages(costs: dict[str, Any]) -> None:
    page = " ".join(read("web/docs/SnoopiNASAApply.md").split())
    match = re.search(r"about (\d+) % of the time of a step of SD1\.5, (\d+) % of SDXL's, (\d+) % of PixArt's", page)
    assert match is not None
    for percent, name in zip(match.groups(), ("SD1.5", "SDXL", "PixArt-alpha"), strict=True):
        cases = costs[name]["NASA"]
        column = next(key for key in cases if key.startswith("time / plain"))
        assert int(percent) == round(100 * (float(ratio(cases[column])) - 1)), name


def drawn(absent: str) -> list[int]:
    """Percent of the pictures that show the unwanted, without and with the negative, of "0.50 -> 0.86"."""
    return [round(100 - 100 * float(share)) for share in absent.split(" -> ")]


def fixed_pairs() -> list[Row]:
    page = read("docs/RESULTS.md")
    part = page[page.index("The fixed pairs:") : page.index("The modal pairs:")]
    return table_of(part, "prompt", "absent, one step", "kept, one step")


def test_the_pairs_are_those_of_the_results_page() -> None:
    rows = fixed_pairs()
    shown = table_of(read("README.md"), "prompt", "prompt kept")
    title = next(name for name in shown[0] if name.startswith("pictures that show it"))
    assert [(row["prompt"], row["negative"]) for row in shown] == [(row["prompt"], row["negative"]) for row in rows]
    for row, measured in zip(shown, rows, strict=True):
        assert [int(each) for each in re.findall(r"\d+", row[title])] == drawn(measured["absent, one step"])
        assert row["prompt kept"] == f"{round(100 * float(measured['kept, one step']))} %"


def test_the_help_pages_have_the_results_shares() -> None:
    rows = fixed_pairs()
    before, after = (round(fmean(each)) for each in zip(*(drawn(row["absent, one step"]) for row in rows), strict=True))
    kept = round(100 * fmean(float(row["kept, one step"]) for row in rows))
    for page in ("SnoopiNASAApply.md", *(f"SnoopiNASAApply/{language}.md" for language in ("fr", "ja", "zh"))):
        text = read(f"web/docs/{page}")
        for share in (before, after, kept):
            assert f"{share} %" in text, (page, share)


@pytest.mark.host
def test_every_node_is_named(pack: Any) -> None:
    async def names() -> list[str]:
        extension = await pack.comfy_entrypoint()
        return [node.GET_SCHEMA().display_name for node in await extension.get_node_list()]

    told = {row["node"].strip("*") for row in table_of(read("README.md"), "node", "what it does")}
    assert set(asyncio.run(names())) <= told


def test_its_links_are_valid() -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", read("README.md")) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_the_most_used_templates_of_comfyui_have_a_row_that_says_yes() -> None:
    """By the counts in the host's own package of templates; with local models, and without 3D."""
    index = importlib.resources.files("comfyui_workflow_templates_json") / "templates" / "index.json"
    templates = [each for group in json.loads(index.read_text(encoding="utf-8")) for each in group["templates"]]
    local = [each for each in templates if each.get("openSource") is not False and "Hunyuan3D" not in each["models"]]
    most_used = sorted(local, key=lambda each: -each.get("usage", 0))[:20]
    yes = " ".join(str(row) for row in table_of(read("README.md"), "your model") if row[""].startswith("yes"))
    for template in most_used:
        assert any(model in yes or model.partition(" Image")[0] in yes for model in template["models"]), template
