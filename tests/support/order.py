"""The order of test files: the slowest first, so that none of them runs last."""

from __future__ import annotations

SLOWEST_FIRST: tuple[str, ...] = (
    # A file, or a common prefix of several, which keep their order.
    # The longest of the full run, one test of which can take a minute.
    "tests/training/distill/test_compile.py",
    "tests/training/trainer/estimate/",
    "tests/experiments/",
    "tests/project/test_first_run.py",
    "tests/training/trainer/test_never_loses.py",
    "tests/quality/",
    "tests/live/server/test_soak.py",
    "tests/live/browser/",
    "tests/live/install/",
    "tests/live/server/",
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
