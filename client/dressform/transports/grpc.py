"""The gRPC transport: Triton's stubs over one HTTP/2 connection that all threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dressform.errors import DressformError
from dressform.requests import Request, routed
from dressform.results import Outputs
from dressform.transports import GRACE_SECONDS, MARGIN_SECONDS, Address, Settings, Tell, too_late
from dressform.transports import grpc_messages as messages


class GrpcTransport:
    """KServe v2 over gRPC."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        self._channel = (
            grpc.secure_channel(address.netloc, messages.credentials(settings.tls), messages.CHANNEL)
            if address.secure
            else grpc.insecure_channel(address.netloc, messages.CHANNEL)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._calls: set[Any] = set()  # gRPC cancels a call that nobody refers to
        self._readers: set[threading.Thread] = set()

    def infer(self, request: Request) -> Outputs:
        """See `Transport`. What ends the wait does not end the call (see `GRACE_SECONDS`)."""
        call = self._stub.ModelInfer.future(
            messages.infer_message(request),
            metadata=messages.metadata(self._settings, request.routed_headers),
            compression=messages.compression(self._settings),
        )
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            with messages.translated(self._address, request.id):
                return messages.outputs(
                    call.result(None if request.timeout is None else request.timeout + MARGIN_SECONDS)
                )
        except grpc.FutureTimeoutError as error:
            raise too_late(request.timeout, request.id) from error

    def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`. Each has a stream of its own, which a balancer can send to the server of the request."""
        answers = self._stub.ModelStreamInfer(
            iter([messages.watch_message(request_id)]), metadata=messages.metadata(self._settings, routed(request_id))
        )
        reader = threading.Thread(target=self._read, args=(answers, tell), name="dressform watch", daemon=True)
        self._readers.add(reader)
        reader.start()

    def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""
        return bool(self._answer(self._stub.ServerReady, pb.ServerReadyRequest(), timeout).ready)

    def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return bool(self._answer(self._stub.ModelReady, pb.ModelReadyRequest(name=model), timeout).ready)

    def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""
        return messages.as_json(self._answer(self._stub.ServerMetadata, pb.ServerMetadataRequest(), timeout))

    def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        answer = self._answer(self._stub.RepositoryIndex, pb.RepositoryIndexRequest(), timeout)
        return messages.entries(answer, "models")

    def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        answer = self._answer(self._stub.ModelStatistics, pb.ModelStatisticsRequest(), timeout)
        return messages.entries(answer, "model_stats")

    def close(self) -> None:
        """See `Transport`. Waits for calls that were given up."""
        end = time.monotonic() + GRACE_SECONDS
        for call in list(self._calls):
            with suppress(grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError):
                call.result(max(0.0, end - time.monotonic()))
        for reader in list(self._readers):
            reader.join(max(0.0, end - time.monotonic()))
        self._channel.close()

    def _answer(self, method: Any, question: Any, timeout: float) -> Any:
        with messages.translated(self._address):
            return method(question, timeout=timeout, metadata=messages.metadata(self._settings))

    def _read(self, answers: Any, tell: Tell) -> None:
        """Hands over the events of one request, and how they end."""
        stream = messages.Stream(tell)
        try:
            with messages.translated(self._address):
                for answer in answers:
                    stream.deliver(answer)
        except DressformError as error:
            stream.error = error
        self._readers.discard(threading.current_thread())
        stream.end()
