"""What both gRPC transports share: requests and answers as messages, the channel's options, errors, watchers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from dressform.errors import DressformError, ServerError, ServerUnavailable, from_answer
from dressform.requests import Request
from dressform.results import Outputs
from dressform.transports import CONNECT_SECONDS, TLS, Address, Settings, Tell
from dressform.transports.tensors import packed, unpacked
from dressform_contract import ADMIN_HEADER, TRITON_PREFIX, Value

if TYPE_CHECKING:
    from google.protobuf.message import Message

CHANNEL = [
    # What is sent again is ours to say (`Retry`). Besides, with gRPC's own retries a connection made while a balancer
    # hands over to its next process aborted the program (grpcio 1.85: `call_combiner.cc`, Check failed).
    ("grpc.enable_retries", 0),
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
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # In spite of its name: how long a connection may take to be made.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000)),
]

_KINDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def credentials(tls: TLS) -> grpc.ChannelCredentials:
    """The channel credentials of ``tls``."""
    files = (tls.ca_file, tls.key_file or tls.certificate_file, tls.certificate_file)
    return grpc.ssl_channel_credentials(*(None if file is None else Path(file).read_bytes() for file in files))


def metadata(settings: Settings, headers: Mapping[str, str] | None = None) -> Sequence[tuple[str, str]]:
    """The headers of a call; gRPC wants their names in lower case, and Triton a prefix before that of its key."""
    given = (*settings.headers.items(), *(headers or {}).items())
    named = {name.lower(): value for name, value in given}
    return [(TRITON_PREFIX + name if name == ADMIN_HEADER else name, value) for name, value in named.items()]


def compression(settings: Settings) -> grpc.Compression:
    """gRPC's constant."""
    return grpc.Compression.NoCompression if settings.compression is None else grpc.Compression.Gzip


def infer_message(request: Request) -> pb.ModelInferRequest:
    """``request`` as a message."""
    message = pb.ModelInferRequest(model_name=request.model, id=request.id)
    for name, data in request.inputs.items():
        message.inputs.add(name=name, datatype="BYTES", shape=request.shape)
        message.raw_input_contents.append(packed(data))
    _set_parameters(message, request.parameters)
    return message


def outputs(answer: pb.ModelInferResponse) -> Outputs:
    """The tensors of an answer.

    Raises:
        ServerError: if they cannot be read.
    """
    try:
        return {
            tensor.name: unpacked(tensor.datatype, tensor.shape, raw)
            for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }
    except ValueError as error:
        raise ServerError(f"the answer is not KServe's: {error}", request_id=answer.id) from error


def as_json(message: Message) -> dict[str, Any]:
    """A message as JSON."""
    from google.protobuf.json_format import MessageToDict

    whole: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return whole


def entries(message: Message, name: str) -> Sequence[Mapping[str, Any]]:
    """The repeated field ``name`` of a message, as JSON."""
    return list(as_json(message).get(name, []))


@contextmanager
def translated(address: Address, request_id: str | None = None) -> Iterator[None]:
    """Turns gRPC's errors into ours."""
    try:
        yield
    except grpc.RpcError as error:
        # Not by way of a local variable: an exception that its own frame holds on to lives until the garbage
        # collector finds it, and the transport with it.
        raise ours(error, address, request_id) from error


def ours(error: Any, address: Address, request_id: str | None = None) -> DressformError:
    """Our error for gRPC's."""
    meant = from_answer(error.details(), str(error.code()), request_id)
    if isinstance(meant, ServerUnavailable) and meant.code is None:
        return ServerUnavailable(f"{address}: {meant.sentence}", request_id=request_id)
    return meant


def watch_message(request_id: str) -> pb.ModelInferRequest:
    """The message that asks for the events of a request: the only one of its stream."""
    return infer_message(Request("watch", {"id": request_id.encode()}, {}, "", shape=(1,)))


class Stream:
    """The answers to a `watch_message`, for ``tell``. An error among them does not end the call (`GRACE_SECONDS`)."""

    def __init__(self, tell: Tell) -> None:
        self.error: DressformError | None = None
        self._tell = tell

    def deliver(self, answer: pb.ModelStreamInferResponse) -> None:
        """Hand over an answer."""
        if self.error is not None:
            return
        if answer.error_message:
            self.error = from_answer(answer.error_message, None)
        elif answer.infer_response.outputs:
            try:
                (event,) = outputs(answer.infer_response)["event"].reshape(-1)
                self._tell(json.loads(event))
            except (ValueError, KeyError) as error:
                self.error = ServerError(f"an event of watch cannot be read: {error!r}")

    def end(self) -> None:
        """Nothing more will come."""
        self._tell(self.error)


def _set_parameters(message: pb.ModelInferRequest, parameters: Mapping[str, Value]) -> None:
    for name, value in parameters.items():
        setattr(message.parameters[name], _KINDS[type(value)], value)
