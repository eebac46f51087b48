"""Talk to a ComfyUI over HTTP and its websocket, as the front end does."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

Prompt = Mapping[str, Mapping[str, Any]]
HANG = 300.0  # seconds; longer than any operation on a busy machine
# a prompt that the host runs immediately
_TRIVIAL = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


class PromptRejected(RuntimeError):
    """The server refused a prompt before running it; ``body`` is its answer."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(json.dumps(body, indent=1))
        self.body = body


@dataclass(frozen=True)
class Outcome:
    """The result of one prompt, from the server's history."""

    prompt_id: str
    status: str
    seconds: float
    outputs: Mapping[str, Any]
    events: list[tuple[str, Mapping[str, Any]]]

    @property
    def results(self) -> list[list[Mapping[str, str]]]:
        """References to the images of each node that saved some, in the order of the nodes' numbers."""
        order = sorted(self.outputs, key=int)  # the server's order is that of execution
        return [self.outputs[number]["images"] for number in order if self.outputs[number].get("images")]

    @property
    def images(self) -> list[Mapping[str, str]]:
        """All images in one list; ``Client.view`` downloads one."""
        return [image for result in self.results for image in result]

    @property
    def cached(self) -> set[str]:
        """The ids of the nodes that were not run again."""
        return {node for name, data in self.events if name == "execution_cached" for node in data["nodes"]}

    @property
    def error(self) -> Mapping[str, Any] | None:
        """node_type, exception_type, exception_message ... when a node failed."""
        return next((data for name, data in self.events if name == "execution_error"), None)


@dataclass
class Stream:
    """The websocket messages while a prompt ran."""

    messages: list[Mapping[str, Any]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [message["data"] for message in self.messages if message["type"] == kind]


class Client:
    """One client of the server at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.id = uuid.uuid4().hex
        self.last_prompt: str | None = None

    def get(self, path: str, **query: str) -> bytes:
        suffix = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.url}{path}{suffix}", timeout=HANG) as reply:
            return reply.read()

    def get_json(self, path: str, **query: str) -> Any:
        return json.loads(self.get(path, **query))

    def post(self, path: str, body: Any) -> bytes:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=HANG) as reply:
            return reply.read()

    def queue(self, prompt: Prompt, workflow: Mapping[str, Any] | None = None) -> str:
        """Queue ``prompt``, made from ``workflow``; returns its id. Raises PromptRejected with the server's reasons."""
        body: dict[str, Any] = {"prompt": prompt, "client_id": self.id}
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            reply = json.loads(self.post("/prompt", body))
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptRejected(json.loads(error.read())) from None
        self.last_prompt = reply["prompt_id"]
        return self.last_prompt

    def wait(self, prompt_id: str, timeout: float = HANG) -> Outcome:
        """Wait until ``prompt_id`` is in the history."""
        started = time.monotonic()
        while time.monotonic() - started < timeout:
            # On old hosts, a failed prompt appears in the history a moment after its execution_error event.
            if entry := self.get_json(f"/history/{prompt_id}").get(prompt_id):
                return _outcome(prompt_id, entry)
            time.sleep(0.05)
        raise TimeoutError(f"prompt {prompt_id} did not finish within {timeout:.0f} s")

    def run(self, prompt: Prompt, timeout: float = HANG, workflow: Mapping[str, Any] | None = None) -> Outcome:
        """Queue ``prompt`` and wait for it."""
        return self.wait(self.queue(prompt, workflow), timeout)

    def queue_until(self, prompt: Prompt, kind: str, timeout: float = HANG) -> str:
        """Queue ``prompt`` and wait for the server's first message of this kind, such as "progress"; returns its id."""
        address = self.url.replace("http", "ws", 1) + f"/ws?clientId={self.id}"
        socket = websocket.create_connection(address, timeout=timeout)
        try:
            prompt_id = self.queue(prompt)
            while True:
                frame = socket.recv()
                if isinstance(frame, str) and json.loads(frame)["type"] == kind:
                    return prompt_id
        finally:
            socket.close()

    def view(self, image: Mapping[str, str]) -> bytes:
        """The bytes of one image of an outcome."""
        return self.get("/view", filename=image["filename"], subfolder=image["subfolder"], type=image["type"])

    def free(self) -> None:
        """Unload models and clear cached outputs; returns when the server has done so.

        The server does it between two prompts, possibly only after one that is already queued.
        """
        self.post("/free", {"unload_models": True, "free_memory": True})
        for _ in range(2):
            self.run(_TRIVIAL)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Record this client's websocket until the last prompt queued inside has ended."""
        address = self.url.replace("http", "ws", 1) + f"/ws?clientId={self.id}"
        socket = websocket.create_connection(address, timeout=HANG)
        stream = Stream()
        try:
            yield stream
            while not any(_is_the_end(message, self.last_prompt) for message in stream.messages[-1:]):
                frame = socket.recv()
                if isinstance(frame, str):
                    stream.messages.append(json.loads(frame))
                else:
                    stream.previews.append(frame)
        finally:
            socket.close()


def _is_the_end(message: Mapping[str, Any], prompt_id: str | None) -> bool:
    """Whether this is the server's last message about a prompt."""
    data = message["data"]
    return message["type"] == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id


def _outcome(prompt_id: str, entry: Mapping[str, Any]) -> Outcome:
    events = [(name, data) for name, data in entry["status"]["messages"]]
    times = [data["timestamp"] for _, data in events if "timestamp" in data]
    seconds = (max(times) - min(times)) / 1000 if times else 0.0
    return Outcome(prompt_id, entry["status"]["status_str"], seconds, entry["outputs"], events)


def load_prompt(path: Path) -> dict[str, dict[str, Any]]:
    """An API-format workflow file."""
    return json.loads(path.read_text(encoding="utf-8"))
