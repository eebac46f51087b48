"""snoopi_core/networks.py names every network of this ComfyUI, and says the truth about each."""

from __future__ import annotations

import ast
import inspect
import operator
import subprocess
import sys

import comfy.model_base
import comfyui_version
import pytest
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from documented import documented
from families import CASES
from families.joint import JOINT_CASES
from families.joint.networks import NETWORKS as JOINT_NETWORKS

from scripts.models_page import PAGE, SINCE, page
from scripts.setup.host import ROOT
from snoopi_core.host.families import FAMILIES
from snoopi_core.networks import NETWORKS

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]


def host_networks() -> dict[str, type]:
    """Every class that the host's models give or take as `unet_model`, by name."""
    tree = ast.parse(inspect.getsource(comfy.model_base))
    given = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "unet_model"
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            named = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            given += [
                value for name, value in zip(named, node.args.defaults, strict=True) if name.arg == "unet_model"
            ]  # fmt: skip
    found = [operator.attrgetter(ast.unparse(value))(comfy.model_base) for value in given if _is_class(value)]
    return {each.__name__: each for each in found}


def _is_class(value: ast.expr) -> bool:
    return ast.unparse(value) != "unet_model"


def test_every_network_of_the_host_is_in_the_table():
    found = host_networks()
    assert len(found) > 30 and {"UNetModel", "WanModel", "LTXAVModel", "Flux"} <= set(found)
    missing = sorted(set(found) - set(NETWORKS))
    assert not missing, f"new networks of this ComfyUI: {missing}; add each to snoopi_core/networks.py"


def test_the_page_says_since_when_a_network_is_there():
    def number(version):
        return [int(part) for part in version.split(".")]

    assert set(SINCE) <= set(NETWORKS)
    expected = {name for name in NETWORKS if number(SINCE.get(name, "0")) <= number(comfyui_version.__version__)}
    assert set(host_networks()) == expected


def test_a_network_is_steered_where_the_table_says_so():
    steered = {UNetModel, *(network for family in FAMILIES for network in getattr(family, "networks", ()))}
    names = {each.__name__ for each in steered}
    for name in host_networks():
        assert bool(NETWORKS[name].rows) == (name in names), name
        assert NETWORKS[name].rows or NETWORKS[name].why, name


def test_each_row_is_measured():
    """By the tests of the families; those of UNets have other names."""
    rows = {row for network in NETWORKS.values() for row in network.rows if not row.startswith("UNet ")}
    measured = {row for row in (*CASES, *JOINT_CASES, *JOINT_NETWORKS) if not row.startswith("UNet ")}
    assert measured <= rows
    assert rows - measured <= NOT_IN_EVERY_HOST


NOT_IN_EVERY_HOST = {"Stable Audio 3", "Wan 2.1 SCAIL-2", "WanDancer", "Wan 2.1 Causal", "Krea 2", "MiniMax H3"}


def test_the_page_is_made_from_the_table():
    command = documented("python -m scripts.models_page")
    assert PAGE.read_text(encoding="utf-8") == page(), f"run {command}"
    subprocess.run([sys.executable, *command.split()[1:]], cwd=ROOT, check=True)
    assert PAGE.read_text(encoding="utf-8") == page()
