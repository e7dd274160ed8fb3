"""The HTTP transport: KServe v2 in binary tensor mode, over connections of the standard library.

tritonclient writes the request and reads the answer, but its own HTTP client is not used: it is built on gevent and
belongs to one thread (with 32 threads it hangs, or fails with "cannot switch to a different thread").
"""

from __future__ import annotations

import contextlib
import http.client
import json
import selectors
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import quote

import tritonclient.http as triton

from dressform.errors import DeadlineExceeded, DressformError, ServerError, ServerUnavailable, from_answer
from dressform.requests import Request
from dressform.results import Outputs
from dressform.transports import CONNECT_SECONDS, TLS, Address, tensors
from dressform_contract import TASK_OUTPUTS

_HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class _Answer:
    """An HTTP answer. ``header_length`` is that of the JSON before the binary tensors, in bytes (None: all is JSON)."""

    status: int
    body: bytes
    header_length: int | None


class HttpTransport:
    """KServe v2 over HTTP/1.1: as many kept-alive connections as there are requests at once."""

    def __init__(self, address: Address, tls: TLS) -> None:
        self._address = address
        self._tls = _context(tls) if address.secure else None
        self._idle: list[http.client.HTTPConnection] = []  # append and pop are atomic
        self._closed = False

    def infer(self, request: Request) -> Outputs:
        """See ``Transport``."""
        body, header_length = triton.InferenceServerClient.generate_request_body(
            tensors(triton.InferInput, request.inputs), request_id=request.id, parameters=dict(request.parameters)
        )
        headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(header_length)}
        path = f"/v2/models/{request.model}/infer"
        answer = self._exchange("POST", path, request.timeout, body, headers, request.id)
        if answer.status != 200:
            raise _refusal(answer, request.id)
        try:
            result = triton.InferenceServerClient.parse_response_body(answer.body, header_length=answer.header_length)
            return {name: result.as_numpy(name) for name in TASK_OUTPUTS[request.model]}
        except Exception as error:  # whatever its parser meets in an answer that is not Triton's
            raise ServerError(
                f"the answer of {self._address} is not KServe's: {error}", request_id=request.id
            ) from error

    def server_ready(self, timeout: float) -> bool:
        """See ``Transport``."""
        return self._exchange("GET", "/v2/health/ready", timeout).status == 200

    def model_ready(self, model: str, timeout: float) -> bool:
        """See ``Transport``."""
        return self._exchange("GET", f"/v2/models/{quote(model, safe='')}/ready", timeout).status == 200

    def close(self) -> None:
        """See ``Transport``."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _exchange(
        self,
        method: str,
        path: str,
        timeout: float | None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        request_id: str | None = None,
    ) -> _Answer:
        """One request and its answer. Never sent twice: the first may be running although its answer is lost."""
        end = None if timeout is None else time.monotonic() + timeout
        connection = self._connection(end, timeout, request_id)
        try:
            connection.request(method, self._address.prefix + path, body, headers or {})
            _set_timeout(connection, end)
            response = connection.getresponse()
            length = response.getheader(_HEADER_LENGTH)
            answer = _Answer(response.status, response.read(), None if length is None else int(length))
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise _too_late(timeout, request_id) from error
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
                text = f"what listens at {self._address} does not speak HTTP/1.1"
                raise ServerUnavailable(text, request_id=request_id) from error
            if isinstance(error, (OSError, http.client.HTTPException)):
                text = f"{self._address} broke off the connection: {error or type(error).__name__}"
                raise ServerUnavailable(text, request_id=request_id) from error
            raise
        if response.will_close or self._closed:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def _connection(
        self, end: float | None, timeout: float | None, request_id: str | None
    ) -> http.client.HTTPConnection:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was quicker
                connection = self._idle.pop()
                if not _dropped(connection):
                    _set_timeout(connection, end)
                    return connection
                connection.close()
        patience = CONNECT_SECONDS if timeout is None else min(timeout, CONNECT_SECONDS)
        connection = self._fresh(patience)
        try:
            connection.connect()
        except TimeoutError as error:
            if patience == timeout:
                raise _too_late(timeout, request_id) from error
            raise ServerUnavailable(f"{self._address} does not answer", request_id=request_id) from error
        except OSError as error:
            text = f"{self._address}: {error.strerror or error}"
            raise ServerUnavailable(text, request_id=request_id) from error
        # A peer that vanished without a word is noticed by the kernel's probes, however long a picture takes.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        _set_timeout(connection, end)
        return connection

    def _fresh(self, patience: float) -> http.client.HTTPConnection:
        host, port = self._address.host, self._address.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=patience)
        return http.client.HTTPSConnection(host, port, timeout=patience, context=self._tls)


def _context(tls: TLS) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.certificate_file is not None:
        context.load_cert_chain(tls.certificate_file, tls.key_file)
    return context


def _set_timeout(connection: http.client.HTTPConnection, end: float | None) -> None:
    """Sockets wait until ``end`` (of ``time.monotonic``) from here on."""
    connection.sock.settimeout(None if end is None else max(0.001, end - time.monotonic()))


def _dropped(connection: http.client.HTTPConnection) -> bool:
    """Whether the server closed an idle connection: then it can be read from (end of file)."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def _too_late(timeout: float | None, request_id: str | None) -> DeadlineExceeded:
    return DeadlineExceeded(f"no answer within {timeout:g} s", request_id=request_id)


def _refusal(answer: _Answer, request_id: str) -> DressformError:
    text = answer.body.decode(errors="replace")
    try:
        text = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        text = f"HTTP {answer.status}: {text[:200] or http.client.responses.get(answer.status, 'no reason given')}"
    return from_answer(text, str(answer.status), request_id)
