"""The bundled student's images of a few pairs, with and without a negative, made once."""

import pytest
from evaluation import PAIRS, STUDENT, evaluate


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.json"
    path.write_text(PAIRS, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def removal_sets(pairs_file, tmp_path_factory):
    """A folder with none/, nasa-1/ and cfg-1.5/, of three pairs with four images each."""
    out = tmp_path_factory.mktemp("sets")
    evaluate(
        *("generate", STUDENT, "--pairs", pairs_file, "--count", 4, "--out", out, "--cpu"),
        *("--methods", "none", "nasa", "cfg:1.5"),
    )
    return out
