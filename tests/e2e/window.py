"""The window on work in flight, `jobs` and `watch`, as any HTTP client sees it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from dressform_contract import Fault
from dressform_server import Server

Event = dict[str, Any]


class Window:
    """On one server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def post(self, model: str, verb: str, body: dict[str, Any], timeout: float = 60) -> Any:
        request = urllib.request.Request(
            f"{self.server.http_url}/v2/models/{model}/{verb}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        return urllib.request.urlopen(request, timeout=timeout)

    def jobs(self, action: str, **inputs: str) -> Any:
        with self.post("jobs", "generate", {"action": action, **inputs}) as answer:
            return json.loads(json.load(answer)["jobs"])

    def stepping(self, request_id: str) -> Callable[[], object]:
        """Whether a request has made a step."""
        return lambda: [j for j in self.jobs("list") if request_id.startswith(j["id"].rstrip("…")) and j["step"] > 0]

    def watch(self, request_id: str) -> Iterator[Event]:
        """The events of a request by ``generate_stream``; a refusal is the last, as ``{"fault": code}``."""
        try:
            stream = self.post("watch", "generate_stream", {"id": request_id})
        except urllib.error.HTTPError as error:  # the first answer is a refusal
            stream = error
        with stream:
            for line in stream:
                if line.startswith(b"data:"):
                    message = json.loads(line.removeprefix(b"data:"))
                    if "error" in message:
                        fault = Fault.parse(message["error"])
                        yield {"fault": fault.code if fault else message["error"]}
                    else:
                        yield json.loads(message["event"])
