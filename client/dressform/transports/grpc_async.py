"""The gRPC transport of an event loop: `dressform.transports.grpc` with ``grpc.aio``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dressform.errors import DressformError
from dressform.requests import Request
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
        self._stream: _Stream | None = None

    async def infer(self, request: Request) -> Outputs:
        """See `Transport`. What ends the wait does not end the call (see `GRACE_SECONDS`)."""
        call = self._kept(
            self._stub.ModelInfer(
                messages.infer_message(request),
                metadata=messages.metadata(self._settings, request.headers),
                compression=messages.compression(self._settings),
            )
        )
        await asyncio.wait({call}, timeout=None if request.timeout is None else request.timeout + MARGIN_SECONDS)
        if not call.done():
            raise too_late(request.timeout, request.id)
        with messages.translated(self._address, request.id):
            return messages.outputs(call.result())

    async def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`. All watches share one stream, which ends with the last of them."""
        if self._stream is None or not self._stream.ask(request_id, tell):
            self._stream = _Stream(self._address)
            self._stream.ask(request_id, tell)
            questions = self._stream.questions()
            answers = self._stub.ModelStreamInfer(questions, metadata=messages.metadata(self._settings))
            self._kept(self._stream.read(answers))

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
        if self._stream is not None:
            self._stream.half_close()
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


class _Stream:
    """One gRPC stream for many watches. It is half-closed when the last of them has ended."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._watchers = messages.Watchers()
        self._waiting: asyncio.Queue[pb.ModelInferRequest | None] = asyncio.Queue()
        self._open = True

    def ask(self, request_id: str, tell: Tell) -> bool:
        """Watch a request; False if the stream is over."""
        if self._open:
            self._waiting.put_nowait(self._watchers.question(request_id, tell))
        return self._open

    async def questions(self) -> Any:
        """What goes out."""
        while (question := await self._waiting.get()) is not None:
            yield question

    async def read(self, answers: Any) -> None:
        """What comes in."""
        error: DressformError | None = None
        try:
            with messages.translated(self._address):
                async for answer in answers:
                    self._watchers.deliver(answer)
                    if not self._watchers:
                        self.half_close()
        except DressformError as ours:
            error = ours
        finally:
            self.half_close()
            self._watchers.end(error)

    def half_close(self) -> None:
        """Ask nothing more."""
        self._open = False
        self._waiting.put_nowait(None)
