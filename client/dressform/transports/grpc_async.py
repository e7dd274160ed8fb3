"""The gRPC transport of an event loop: `dressform.transports.grpc` with ``grpc.aio``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dressform.errors import DressformError
from dressform.requests import Request, routed
from dressform.results import Outputs
from dressform.transports import GRACE_SECONDS, MARGIN_SECONDS, Address, Settings, Tell, too_late
from dressform.transports import grpc_messages as messages


class AsyncGrpcTransport:
    """KServe v2 over gRPC. It belongs to the event loop in which it is first used."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        self._connection: tuple[Any, Any] | None = None
        self._running: set[asyncio.Future[Any]] = set()

    async def infer(self, request: Request) -> Outputs:
        """See `Transport`. What ends the wait does not end the call (see `GRACE_SECONDS`)."""
        call = self._kept(
            self._stub.ModelInfer(
                messages.infer_message(request),
                metadata=messages.metadata(self._settings, request.routed_headers),
                compression=messages.compression(self._settings),
            )
        )
        await asyncio.wait({call}, timeout=None if request.timeout is None else request.timeout + MARGIN_SECONDS)
        if not call.done():
            raise too_late(request.timeout, request.id)
        with messages.translated(self._address, request.id):
            return messages.outputs(call.result())

    async def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`. Each has a stream of its own, which a balancer can send to the server of the request."""
        answers = self._stub.ModelStreamInfer(
            iter([messages.watch_message(request_id)]), metadata=messages.metadata(self._settings, routed(request_id))
        )
        self._kept(self._read(answers, tell))

    async def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""
        return bool((await self._answer(self._stub.ServerReady, pb.ServerReadyRequest(), timeout)).ready)

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return bool((await self._answer(self._stub.ModelReady, pb.ModelReadyRequest(name=model), timeout)).ready)

    async def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""
        return messages.as_json(await self._answer(self._stub.ServerMetadata, pb.ServerMetadataRequest(), timeout))

    async def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        answer = await self._answer(self._stub.RepositoryIndex, pb.RepositoryIndexRequest(), timeout)
        return messages.entries(answer, "models")

    async def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        answer = await self._answer(self._stub.ModelStatistics, pb.ModelStatisticsRequest(), timeout)
        return messages.entries(answer, "model_stats")

    async def close(self) -> None:
        """See `Transport`. Waits for calls that were given up."""
        if self._running:
            await asyncio.wait(self._running, timeout=GRACE_SECONDS)
        if self._connection is not None:
            await self._connection[0].close()

    @property
    def _stub(self) -> Any:
        # grpc.aio binds a channel to the loop that runs when it is made.
        if self._connection is None:
            address = self._address
            channel = (
                grpc.aio.secure_channel(address.netloc, messages.credentials(self._settings.tls), messages.CHANNEL)
                if address.secure
                else grpc.aio.insecure_channel(address.netloc, messages.CHANNEL)
            )
            self._connection = channel, service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return self._connection[1]

    async def _answer(self, method: Any, question: Any, timeout: float) -> Any:
        with messages.translated(self._address):
            return await method(question, timeout=timeout, metadata=messages.metadata(self._settings))

    async def _read(self, answers: Any, tell: Tell) -> None:
        """Hands over the events of one request, and how they end."""
        stream = messages.Stream(tell)
        try:
            with messages.translated(self._address):
                async for answer in answers:
                    stream.deliver(answer)
        except DressformError as error:
            stream.error = error
        stream.end()

    def _kept(self, awaitable: Any) -> asyncio.Future[Any]:
        """A task of its own, so that nobody's cancellation reaches the call; kept until it is done."""

        async def run() -> Any:
            return await awaitable

        task = asyncio.ensure_future(run())
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: one that was given up is not reported as forgotten
