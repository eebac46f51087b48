"""Images of a few pairs by the shapes' student, with and without a negative, generated once."""

import pytest
import torch
from evaluation import PAIRS, STUDENT, evaluate
from live_browser import FLAGS, find_chromium
from PIL import Image
from playwright.sync_api import sync_playwright
from tiny_inception import write_inception

from training.prompts.shapes.scene import render, sample_scenes


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.json"
    path.write_text(PAIRS, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def removal_sets(pairs_file, tmp_path_factory):
    """A folder with none/, nasa-1/ and cfg-1.5/: three pairs with four images each."""
    out = tmp_path_factory.mktemp("sets")
    evaluate(
        *("generate", STUDENT, "--pairs", pairs_file, "--count", 4, "--out", out, "--cpu"),
        *("--methods", "none", "nasa", "cfg:1.5"),
    )
    return out


@pytest.fixture(scope="module")
def chromium():
    """A real browser, without a server. Closed after each file, since Playwright can run only once in a process."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def inception(tmp_path_factory):
    """Random weights of Inception."""
    return write_inception(tmp_path_factory.mktemp("inception") / "inception.pth")


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Six scenes, drawn by the shapes renderer."""
    folder = tmp_path_factory.mktemp("reference")
    for n, image in enumerate(render(sample_scenes(6, torch.Generator().manual_seed(1)))):
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / f"{n}.png")
    return folder
