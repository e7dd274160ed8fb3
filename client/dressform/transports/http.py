"""The HTTP transport: KServe v2 by httpx, over as many kept-alive connections as there are requests at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from dressform.errors import DressformError
from dressform.requests import Request
from dressform.results import Outputs
from dressform.transports import Address, Settings, Tell
from dressform.transports import http_messages as messages


class HttpTransport:
    """KServe v2 over HTTP/1.1."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        transport = httpx.HTTPTransport(**messages.connection(address, settings))
        self._client = httpx.Client(transport=transport, **messages.client(address, settings))

    def infer(self, request: Request) -> Outputs:
        """See `Transport`. Never sent twice: the first may be running although its answer is lost."""
        with messages.translated(self._address, request.timeout, request.id):
            response = self._client.post(**vars(messages.infer_post(request, self._settings)))
        return messages.outputs(response, request, self._address)

    def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`."""
        threading.Thread(target=self._read, args=(request_id, tell), name="dressform watch", daemon=True).start()

    def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""
        return messages.ready(self._send("GET", "/v2/health/ready", timeout))

    def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return messages.ready(self._send("GET", f"/v2/models/{quote(model, safe='')}/ready", timeout))

    def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""
        return messages.read(self._send("GET", "/v2", timeout), self._address, dict)

    def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return messages.read(self._send("POST", "/v2/repository/index", timeout), self._address, list)

    def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return messages.read(self._send("GET", "/v2/models/stats", timeout), self._address, messages.statistics)

    def close(self) -> None:
        """See `Transport`."""
        self._client.close()

    def _send(self, method: str, path: str, timeout: float) -> httpx.Response:
        with messages.translated(self._address, timeout):
            return self._client.request(method, path, timeout=messages.timeout(timeout))

    def _read(self, request_id: str, tell: Tell) -> None:
        """Hands over the events of one request, and how they end."""
        end: DressformError | None = None
        try:
            with messages.translated(self._address):
                self._hand_over(request_id, tell)
        except DressformError as error:
            end = error
        tell(end)

    def _hand_over(self, request_id: str, tell: Tell) -> None:
        with self._client.stream("POST", **vars(messages.watch_post(request_id))) as response:
            if not response.is_success:
                response.read()
                raise messages.refusal(response)
            for line in response.iter_lines():
                if (event := messages.event(line)) is not None:
                    tell(event)
