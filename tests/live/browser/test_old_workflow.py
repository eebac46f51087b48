"""A template of the first version, saved before `method` and most other inputs existed, still does the same."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from live_browser import LOAD, open_front_end
from live_client import load_prompt
from live_server import Server
from PIL import Image
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.slow]

SAVED = Path(__file__).parents[2] / "support" / "saved"
# What these nodes have had since then, with the values that change nothing; NASA Apply also has a mask.
LATER: dict[str, dict[str, Any]] = {
    "SnoopiPGSBLoader": {"lora_name": "none", "latents": "auto"},
    "SnoopiNASAApply": {
        "alpha_mode": "as set", "method": "NASA", "nag_tau": 2.5, "nag_blend": 0.375, "vsf_beta": 0.0,
    },
    "SnoopiOneStepSampler": {"preset": "auto"},
}  # fmt: skip
Prompt = dict[str, dict[str, Any]]


def old() -> Prompt:
    return load_prompt(SAVED / "before_methods.api.json")


def given(prompt: Prompt, **changed: Any) -> Prompt:
    """The prompt with the later inputs given too; `changed`: of NASA Apply."""
    result = copy.deepcopy(prompt)
    for node in result.values():
        more = LATER.get(node["class_type"], {})
        assert not more.keys() & node["inputs"].keys()
        node["inputs"] |= more | (changed if node["class_type"] == "SnoopiNASAApply" else {})
    return result


def pictures(server: Server, prompt: Prompt) -> list[bytes]:
    outcome = server.client.run(prompt)
    assert outcome.status == "success", outcome.error
    # Without the metadata, in which the prompts differ.
    return [Image.open(io.BytesIO(server.client.view(image))).tobytes() for image in outcome.images]


def test_all_later_inputs_are_optional_and_listed_here(server: Server) -> None:
    """The front end saves values without names, in the inputs' order: required ones first."""
    nodes = [node for node in old().values() if node["class_type"] in LATER]
    assert len(nodes) == len(LATER)
    for node in nodes:
        inputs = server.client.get_json(f"/object_info/{node['class_type']}")[node["class_type"]]["input"]
        assert inputs["required"].keys() == node["inputs"].keys()
        values = [name for name, value in node["inputs"].items() if not isinstance(value, list)]
        assert [name for name in inputs["required"] if name in values] == values
        assert inputs["optional"].keys() - {"mask"} == LATER[node["class_type"]].keys()


def test_from_a_script(server: Server) -> None:
    made = pictures(server, old())
    assert len(made) == 4 and made == pictures(server, given(old()))
    assert made != pictures(server, given(old(), method="VSF"))


@pytest.mark.full
def test_in_the_front_end(browser: Browser, server: Server) -> None:
    """Which gives the later inputs their defaults."""
    with open_front_end(browser, server.client, size=(1280, 720)) as page:
        page.evaluate(LOAD, (SAVED / "before_methods.json").read_text(encoding="utf-8"))
        sent = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert {number: (node["class_type"], node["inputs"]) for number, node in sent.items()} == {
        number: (node["class_type"], node["inputs"]) for number, node in given(old()).items()
    }
    assert pictures(server, sent) == pictures(server, old())
