"""The order of test files: the slowest first, so that none of them runs last; and which of them stay in one process."""

from __future__ import annotations

SLOWEST_FIRST: tuple[str, ...] = (
    # A file, or a common prefix of several, which keep their order.
    "tests/live/browser/",
    "tests/live/server/",
    # The longest of the full run, one test of which can take a minute.
    "tests/training/distill/test_compile.py",
    "tests/training/trainer/estimate/",
    "tests/experiments/",
    "tests/project/test_first_run.py",
    "tests/training/trainer/test_never_loses.py",
    "tests/quality/",
    "tests/live/install/",
    "tests/training/trainer/",
    "tests/nodes/families/test_contract_beside.py",
    "tests/nodes/families/joint/test_contract.py",
    "tests/nodes/families/test_weights.py",
    "tests/nodes/compose/test_any_workflow.py",
    "tests/nodes/test_loader_fuzz.py",
    "tests/nodes/families/test_compile.py",
    "tests/nodes/families/joint/test_compile.py",
    "tests/nodes/compose/test_compile.py",
    "tests/nodes/test_trained_students.py",
    "tests/nodes/test_loader_full_size.py",
    "tests/training/evaluate/",
    "tests/training/distill/",
    "tests/nodes/test_loader_foreign.py",
    "tests/nodes/test_loader_lora.py",
    "tests/benchmarks/",
)


def rank(path: str) -> int:
    """Position of a test file, given relative to the repository's root with forward slashes."""
    return next((place for place, start in enumerate(SLOWEST_FIRST) if path.startswith(start)), len(SLOWEST_FIRST))


# Tests that pytest-xdist gives to one process, since they share what takes long to make: servers (14 CPU seconds each),
# pairs of prompts and negatives, sets of images. Prefixes, as above.
TOGETHER: tuple[tuple[str, ...], ...] = (
    ("tests/live/browser/", "tests/live/server/"),
    ("tests/quality/",),
    ("tests/training/evaluate/",),
)


def unit(path: str) -> str:
    """Names the tests that go to one process with this file's."""
    return next((prefixes[0] for prefixes in TOGETHER if path.startswith(prefixes)), path)
