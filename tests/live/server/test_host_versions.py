"""The oldest and the newest supported ComfyUI: the pack loads without a complaint and the main workflow runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from live_client import load_prompt
from live_pack import FOLDER, ROOT
from live_server import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

MAIN = ROOT / "workflows" / "api" / "one_step_with_negative_prompt.json"


@pytest.mark.parametrize("version", ["0.16.3", "0.30.0"])
def test_the_pack_loads_and_the_main_workflow_runs(
    version: str, pinned_host: Callable[[str], Path], tmp_path: Path
) -> None:
    with Server(pinned_host(version), tmp_path) as server:
        assert server.client.get_json("/system_stats")["system"]["comfyui_version"] == version
        outcome = server.client.run(load_prompt(MAIN))
        assert outcome.status == "success", outcome.error
        assert outcome.images
        log = server.log()
    ours = [line for line in log.splitlines() if FOLDER in line or "snoopi" in line.lower()]
    assert any(re.search(r"\d seconds", line) for line in ours), "the host lists the packs it loaded"
    assert not [line for line in ours if re.search(r"(?i)error|fail|warning|unable|skip", line)], "\n".join(ours)
    assert "Traceback" not in log.split("Starting server")[-1]
