"""Run a workflow and fetch its pictures."""

from __future__ import annotations

import io

from live_client import Client, Prompt
from PIL import Image


def run(client: Client, prompt: Prompt) -> tuple[list[list[Image.Image]], float]:
    """(pictures of each Save Image node in the order of the workflow, seconds on the server).

    Raises:
        RuntimeError: a node failed.
    """
    outcome = client.run(prompt)
    if outcome.error:
        raise RuntimeError(f"{outcome.error['node_type']}: {outcome.error['exception_message']}")
    results = [[Image.open(io.BytesIO(client.view(image))).convert("RGB") for image in r] for r in outcome.results]
    return results, outcome.seconds
