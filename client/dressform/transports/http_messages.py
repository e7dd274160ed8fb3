"""What both HTTP transports share: requests and answers in KServe's binary tensor mode, the event stream, errors."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from dressform.errors import DressformError, InvalidRequest, ServerError, ServerUnavailable, from_answer
from dressform.progress import Event
from dressform.requests import Request, routed
from dressform.results import Outputs
from dressform.transports import CONNECT_SECONDS, MARGIN_SECONDS, TLS, Address, Settings, too_late
from dressform.transports.tensors import packed, unpacked

T = TypeVar("T")

_HEADER_LENGTH = "Inference-Header-Content-Length"

# As many connections as there are requests at once.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60.0)

# A peer that vanished without a word is noticed by the kernel's probes, however long a picture takes.
_KEEPALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


@dataclass(frozen=True)
class Post:
    """What goes out: ``httpx``'s arguments."""

    url: str
    content: bytes
    headers: Mapping[str, str]
    timeout: httpx.Timeout


def connection(address: Address, settings: Settings) -> dict[str, Any]:
    """The arguments of httpx's two transports."""
    return {
        "verify": _context(settings.tls) if address.secure else False,
        "limits": _LIMITS,
        "socket_options": _KEEPALIVE,
    }


def client(address: Address, settings: Settings) -> dict[str, Any]:
    """The arguments of httpx's two clients besides the transport."""
    # Triton compresses whatever the client accepts compressed, and pictures are compressed already.
    coding = {"Accept-Encoding": settings.compression or "identity"}
    return {"base_url": str(address), "headers": {**coding, **settings.headers}}


def infer_post(request: Request, settings: Settings) -> Post:
    """``request`` as a POST."""
    blobs = {name: packed(data) for name, data in request.inputs.items()}
    head = {
        "id": request.id,
        "parameters": {**request.parameters, "binary_data_output": True},
        "inputs": [
            {"name": name, "shape": request.shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
            for name, blob in blobs.items()
        ],
    }
    header = json.dumps(head).encode()
    content = b"".join([header, *blobs.values()])
    headers = {**request.routed_headers, "Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}
    if settings.compression == "gzip":
        content = gzip.compress(content, 1)
        headers["Content-Encoding"] = "gzip"
    url = f"/v2/models/{quote(request.model, safe='')}/infer"
    return Post(url, content, headers, timeout(None if request.timeout is None else request.timeout + MARGIN_SECONDS))


def watch_post(request_id: str) -> Post:
    """The POST that opens the event stream of a request."""
    content = json.dumps({"id": request_id}).encode()
    headers = {**routed(request_id), "Content-Type": "application/json"}
    return Post("/v2/models/watch/generate_stream", content, headers, timeout(None))


def timeout(seconds: float | None) -> httpx.Timeout:
    """How long a socket may be silent."""
    connect = CONNECT_SECONDS if seconds is None else min(seconds, CONNECT_SECONDS)
    return httpx.Timeout(connect=connect, read=seconds, write=seconds, pool=None)


def outputs(response: httpx.Response, request: Request, address: Address) -> Outputs:
    """The tensors of an answer.

    Raises:
        ServerError: if they cannot be read.
        DressformError: if the answer is a refusal.
    """
    if response.status_code != HTTPStatus.OK:
        raise refusal(response, request.id)
    body = response.content
    try:
        length = int(response.headers.get(_HEADER_LENGTH, len(body)))
        tensors, offset = {}, length
        for tensor in json.loads(body[:length]).get("outputs", []):
            size = int(tensor["parameters"]["binary_data_size"])
            tensors[tensor["name"]] = unpacked(tensor["datatype"], tensor["shape"], body[offset : offset + size])
            offset += size
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"the answer of {address} is not KServe's: {error!r}", request_id=request.id) from error


def read(response: httpx.Response, address: Address, kind: Callable[[Any], T]) -> T:
    """What a JSON answer says, as ``kind`` takes it.

    Raises:
        ServerError: if it is not of that kind.
        DressformError: if the answer is a refusal.
    """
    if response.status_code != HTTPStatus.OK:
        raise refusal(response)
    try:
        return kind(response.json())
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"the answer of {address} is not KServe's: {error!r}") from error


def ready(response: httpx.Response) -> bool:
    """What an answer about readiness says. Triton answers 400 where it, or a model, is not ready.

    Raises:
        DressformError: if it is a refusal of another kind.
    """
    if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE):
        return False
    if not response.is_success:
        raise refusal(response)
    return True


def statistics(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries in an answer of ``/v2/models/stats``."""
    return list(answer["model_stats"])


def event(line: str) -> Event | None:
    """The event in a line of the stream, None if it has none.

    Raises:
        ServerError: if the line cannot be read.
        DressformError: if it is a refusal.
    """
    if not line.startswith("data:"):
        return None
    try:
        message = json.loads(line.removeprefix("data:"))
        told: Event | None = None if "error" in message else json.loads(message["event"])
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"an event of watch cannot be read: {error!r}") from error
    if told is None:
        raise from_answer(str(message["error"]), None)
    return told


def refusal(response: httpx.Response, request_id: str | None = None) -> DressformError:
    """The error that an answer with a bad status stands for. Its body must have been read."""
    status, text = response.status_code, response.text
    try:
        text = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        text = f"HTTP {status}: {text[:200] or response.reason_phrase or 'no reason given'}"
    return from_answer(text, str(status), request_id)


@contextmanager
def translated(address: Address, timeout: float | None = None, request_id: str | None = None) -> Iterator[None]:
    """Turns httpx's errors into ours; ``timeout`` is the caller's, in seconds."""
    try:
        yield
    except httpx.TimeoutException as error:
        if timeout is None or (isinstance(error, httpx.ConnectTimeout) and timeout > CONNECT_SECONDS):
            raise ServerUnavailable(f"{address} does not answer", request_id=request_id) from error
        raise too_late(timeout, request_id) from error
    except httpx.TransportError as error:
        text = f"{address}: {error or type(error).__name__}"
        raise ServerUnavailable(text, request_id=request_id) from error
    except httpx.HTTPError as error:
        raise ServerError(f"the answer of {address} cannot be read: {error}", request_id=request_id) from error


def _context(tls: TLS) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.certificate_file is not None:
            context.load_cert_chain(tls.certificate_file, tls.key_file)
    except ssl.SSLError as error:
        raise InvalidRequest(f"{tls} cannot be used: {error}") from error
    return context
