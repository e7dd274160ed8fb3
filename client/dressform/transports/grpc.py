"""The gRPC transport: Triton's stubs over one HTTP/2 connection that all threads share."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dressform.errors import DressformError
from dressform.requests import Request, routed
from dressform.results import Outputs
from dressform.transports import GRACE_SECONDS, MARGIN_SECONDS, Address, Settings, Tell, too_late
from dressform.transports import grpc_messages as messages

T = TypeVar("T")


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
        self._thread = CallingThread()
        self._calls: set[Any] = set()  # gRPC cancels a call that nobody refers to
        self._readers: set[threading.Thread] = set()

    def infer(self, request: Request) -> Outputs:
        """See `Transport`. What ends the wait does not end the call (see `GRACE_SECONDS`)."""
        metadata = messages.metadata(self._settings, request.routed_headers)
        compression = messages.compression(self._settings)
        wait = None if request.timeout is None else request.timeout + MARGIN_SECONDS
        try:
            with messages.translated(self._address, request.id):
                message = messages.infer_message(request)
                answer = self._answer(self._stub.ModelInfer, message, wait, metadata=metadata, compression=compression)
                return messages.outputs(answer)
        except queue.Empty as error:
            raise too_late(request.timeout, request.id) from error

    def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`. Each has a stream of its own, which a balancer can send to the server of the request."""
        question = iter([messages.watch_message(request_id)])
        metadata = messages.metadata(self._settings, routed(request_id))
        answers = self._thread.run(lambda: self._stub.ModelStreamInfer(question, metadata=metadata))
        reader = threading.Thread(target=self._read, args=(answers, tell), name="dressform watch", daemon=True)
        self._readers.add(reader)
        reader.start()

    def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""
        return bool(self._asked(self._stub.ServerReady, pb.ServerReadyRequest(), timeout).ready)

    def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return bool(self._asked(self._stub.ModelReady, pb.ModelReadyRequest(name=model), timeout).ready)

    def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""
        return messages.as_json(self._asked(self._stub.ServerMetadata, pb.ServerMetadataRequest(), timeout))

    def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        answer = self._asked(self._stub.RepositoryIndex, pb.RepositoryIndexRequest(), timeout)
        return messages.entries(answer, "models")

    def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        answer = self._asked(self._stub.ModelStatistics, pb.ModelStatisticsRequest(), timeout)
        return messages.entries(answer, "model_stats")

    def close(self) -> None:
        """See `Transport`. Waits for calls that were given up."""
        self._thread.run(self._close)

    def _close(self) -> None:
        end = time.monotonic() + GRACE_SECONDS
        for call in list(self._calls):
            with suppress(grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError):
                call.result(max(0.0, end - time.monotonic()))
        for reader in list(self._readers):
            reader.join(max(0.0, end - time.monotonic()))
        self._channel.close()

    def _asked(self, method: Any, question: Any, timeout: float) -> Any:
        """The answer to a question about the server, which gRPC gives up after ``timeout`` seconds."""
        with messages.translated(self._address):
            return self._answer(method, question, None, timeout=timeout, metadata=messages.metadata(self._settings))

    def _answer(self, method: Any, message: Any, wait: float | None, **options: Any) -> Any:
        """The answer of a call.

        Raises:
            queue.Empty: if there is none within ``wait`` seconds. The call goes on.
        """
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def begin() -> None:
            call = method.future(message, **options)
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            call.add_done_callback(ended.put)

        self._thread.run(begin)
        return ended.get(timeout=wait).result()

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


class CallingThread:
    """A thread that makes the calls of gRPC for all others.

    Python raises a Ctrl-C in the main thread, wherever that is. Within gRPC it left a lock held, or a call that nobody
    heard the end of, and every later call, and `close`, waited for ever. Here the main thread only waits on queues,
    which take no harm. The thread ends with this object.
    """

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=_carry_out, args=(self._tasks,), name="dressform grpc", daemon=True).start()
        weakref.finalize(self, self._tasks.put, None)

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, done by the thread."""
        done: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()

        def task() -> None:
            future: Future[T] = Future()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            done.put(future)

        self._tasks.put(task)
        return done.get().result()


def _carry_out(tasks: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # it holds who asked for it
