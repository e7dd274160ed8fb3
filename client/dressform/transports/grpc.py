"""The gRPC transport: tritonclient's client, one HTTP/2 connection shared by all threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from dressform.errors import DressformError, ServerUnavailable, from_answer
from dressform.requests import Request
from dressform.results import Outputs
from dressform.transports import TLS, Address, tensors
from dressform_contract import TASK_OUTPUTS

_CHANNEL = [
    # Pictures: gRPC's own limit is 4 MiB, Triton's is INT32_MAX both ways.
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # Triton ends a connection that is pinged more often than every 300 s while no data flows.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own back-off grows to two minutes: a restarted server should be found in seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

GRACE_SECONDS = 10.0
"""How long after a request's timeout the connection gives up.

The server ends the job itself, by ``deadline_ms``. A gRPC call that its client cuts off can crash the embedded Triton
(2.51, server issue 7368), so that is left for a server that does not answer at all.
"""


class GrpcTransport:
    """KServe v2 over gRPC."""

    def __init__(self, address: Address, tls: TLS) -> None:
        self._address = address
        self._client = triton.InferenceServerClient(
            address.netloc,
            ssl=address.secure,
            root_certificates=tls.ca_file,
            private_key=tls.key_file,
            certificate_chain=tls.certificate_file,
            channel_args=_CHANNEL,
        )

    def infer(self, request: Request) -> Outputs:
        """See ``Transport``."""
        with self._translated(request.id):
            answer = self._client.infer(
                request.model,
                tensors(triton.InferInput, request.inputs),
                request_id=request.id,
                parameters=dict(request.parameters),
                client_timeout=None if request.timeout is None else request.timeout + GRACE_SECONDS,
            )
            return {name: answer.as_numpy(name) for name in TASK_OUTPUTS[request.model]}

    def server_ready(self, timeout: float) -> bool:
        """See ``Transport``."""
        with self._translated():
            return bool(self._client.is_server_ready(client_timeout=timeout))

    def model_ready(self, model: str, timeout: float) -> bool:
        """See ``Transport``."""
        with self._translated():
            return bool(self._client.is_model_ready(model, client_timeout=timeout))

    def close(self) -> None:
        """See ``Transport``."""
        self._client.close()

    @contextmanager
    def _translated(self, request_id: str | None = None) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            # Not by way of a local variable: an exception that its own frame holds on to lives until the garbage
            # collector finds it, and this transport with it.
            raise self._ours(error, request_id) from error

    def _ours(self, error: InferenceServerException, request_id: str | None) -> DressformError:
        ours = from_answer(error.message(), error.status(), request_id)
        if isinstance(ours, ServerUnavailable):
            return ServerUnavailable(f"{self._address}: {ours.sentence}", request_id=request_id)
        return ours
