"""The package, installed, used and removed again: nothing of it stays, and the front end names it as missing."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from live_browser import LOAD, front_end, screenshot
from live_client import load_prompt
from live_pack import FOLDER, ROOT
from live_server import Server
from templates import FIRST, api_file

pytestmark = [pytest.mark.install, pytest.mark.browser, pytest.mark.slow, pytest.mark.full]

OWN = {"temp", "user"}  # where ComfyUI itself writes


def files(base: Path) -> set[str]:
    return {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}


def test_removing_it_leaves_pictures_alone_and_a_notice_that_names_it(
    archive: Path, newest_host: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    pack = base / "custom_nodes" / FOLDER

    def unpack(base: Path) -> None:
        with zipfile.ZipFile(archive) as file:
            file.extractall(pack)

    with Server(newest_host, base, install=unpack) as server:
        before = {path for path in files(base) if not path.startswith(f"custom_nodes/{FOLDER}/")}
        outcome = server.client.run(load_prompt(pack / api_file(FIRST).relative_to(ROOT)))
        assert outcome.status == "success", outcome.error
        workflow = (pack / "workflows" / f"{FIRST}.json").read_text(encoding="utf-8")
        server.stop()
        shutil.rmtree(pack)
        left = {path for path in files(base) - before if path.split("/")[0] not in OWN}
        assert left == {f"output/{image['subfolder']}/{image['filename']}" for image in outcome.images}

        server.start()
        assert "snoopi" not in json.dumps([*server.client.get_json("/object_info")]).lower()
        assert "Traceback" not in server.start_log
        with front_end(server.client) as page:
            page.evaluate(LOAD, workflow)
            page.get_by_role("button", name="View details").click()
            notice = page.get_by_test_id("missing-node-card")
            notice.get_by_text("snoopi", exact=True).wait_for()
            screenshot(page, ROOT / "out" / "screenshots" / "removed.png")
