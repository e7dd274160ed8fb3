"""What both gRPC transports share: requests and answers as messages, the channel's options, errors, watchers."""

from __future__ import annotations

import json
import threading
import uuid
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
from dressform_contract import Value

if TYPE_CHECKING:
    from google.protobuf.message import Message

CHANNEL = [
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
_FINAL = "triton_final_response"


def credentials(tls: TLS) -> grpc.ChannelCredentials:
    """The channel credentials of ``tls``."""
    files = (tls.ca_file, tls.key_file or tls.certificate_file, tls.certificate_file)
    return grpc.ssl_channel_credentials(*(None if file is None else Path(file).read_bytes() for file in files))


def metadata(settings: Settings, headers: Mapping[str, str] | None = None) -> Sequence[tuple[str, str]]:
    """The headers of a call; gRPC wants their names in lower case."""
    return list({name.lower(): value for name, value in (*settings.headers.items(), *(headers or {}).items())}.items())


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
    if isinstance(meant, ServerUnavailable):
        return ServerUnavailable(f"{address}: {meant.sentence}", request_id=request_id)
    return meant


class Watchers:
    """Who watches what on one stream: its answers carry the keys of the questions."""

    def __init__(self) -> None:
        self._tells: dict[str, Tell] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tells)

    def question(self, request_id: str, tell: Tell) -> pb.ModelInferRequest:
        """The message that asks for the events of a request; they go to ``tell``."""
        key = uuid.uuid4().hex
        with self._lock:
            self._tells[key] = tell
        question = infer_message(Request("watch", {"id": request_id.encode()}, {}, key, shape=(1,)))
        _set_parameters(question, {"triton_enable_empty_final_response": True})
        return question

    def deliver(self, answer: pb.ModelStreamInferResponse) -> None:
        """Hand an answer to whom it concerns."""
        response = answer.infer_response
        tell = self._tells.get(response.id)
        if tell is None:
            return
        if answer.error_message:
            self._end(response.id, from_answer(answer.error_message, None))
            return
        if response.outputs:
            try:
                (event,) = outputs(response)["event"].reshape(-1)
                tell(json.loads(event))
            except (ValueError, KeyError) as error:
                self._end(response.id, ServerError(f"an event of watch cannot be read: {error!r}"))
                return
        if response.parameters[_FINAL].bool_param:
            self._end(response.id, None)

    def end(self, error: DressformError | None) -> None:
        """The stream is over, for all."""
        for key in list(self._tells):
            self._end(key, error)

    def _end(self, key: str, error: DressformError | None) -> None:
        with self._lock:
            tell = self._tells.pop(key, None)
        if tell is not None:
            tell(error)


def _set_parameters(message: pb.ModelInferRequest, parameters: Mapping[str, Value]) -> None:
    for name, value in parameters.items():
        setattr(message.parameters[name], _KINDS[type(value)], value)
