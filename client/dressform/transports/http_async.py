"""The HTTP transport of an event loop: `dressform.transports.http` with httpx's asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from dressform.errors import DressformError
from dressform.requests import Request
from dressform.results import Outputs
from dressform.transports import Address, Settings, Tell
from dressform.transports import http_messages as messages


class AsyncHttpTransport:
    """KServe v2 over HTTP/1.1."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        transport = httpx.AsyncHTTPTransport(**messages.connection(address, settings))
        self._readers: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(transport=transport, **messages.client(address, settings))

    async def infer(self, request: Request) -> Outputs:
        """See `Transport`. Never sent twice: the first may be running although its answer is lost."""
        with messages.translated(self._address, request.timeout, request.id):
            response = await self._client.post(**vars(messages.infer_post(request, self._settings)))
        return messages.outputs(response, request, self._address)

    async def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`."""
        task = asyncio.create_task(self._read(request_id, tell))
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""
        return messages.ready(await self._send("GET", "/v2/health/ready", timeout))

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return messages.ready(await self._send("GET", f"/v2/models/{quote(model, safe='')}/ready", timeout))

    async def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""
        return messages.read(await self._send("GET", "/v2", timeout), self._address, dict)

    async def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return messages.read(await self._send("POST", "/v2/repository/index", timeout), self._address, list)

    async def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return messages.read(await self._send("GET", "/v2/models/stats", timeout), self._address, messages.statistics)

    async def close(self) -> None:
        """See `Transport`."""
        await self._client.aclose()

    async def _send(self, method: str, path: str, timeout: float) -> httpx.Response:
        with messages.translated(self._address, timeout):
            return await self._client.request(method, path, timeout=messages.timeout(timeout))

    async def _read(self, request_id: str, tell: Tell) -> None:
        """Hands over the events of one request, and how they end."""
        end: DressformError | None = None
        try:
            with messages.translated(self._address):
                await self._hand_over(request_id, tell)
        except DressformError as error:
            end = error
        tell(end)

    async def _hand_over(self, request_id: str, tell: Tell) -> None:
        async with self._client.stream("POST", **vars(messages.watch_post(request_id))) as response:
            if not response.is_success:
                await response.aread()
                raise messages.refusal(response)
            async for line in response.aiter_lines():
                if (event := messages.event(line)) is not None:
                    tell(event)
