"""Transports: how a request reaches the server. Each is thin: it carries bytes, and turns foreign errors into ours.

A transport can be given to a client instead of an address, so code that uses a client is tested without a server
(``dressform.testing`` has one).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from dressform.errors import DeadlineExceeded, DressformError, InvalidRequest
from dressform.options import checked_headers
from dressform.progress import Event
from dressform.requests import Request
from dressform.results import Outputs

_PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}

CONNECT_SECONDS = 10.0
"""Longest wait for a connection to be made."""

MARGIN_SECONDS = 0.5
"""How long after a request's timeout its answer is waited for: the server's own refusal says more than ours."""

GRACE_SECONDS = 10.0
"""How long a closing client waits for calls that it gave up.

A gRPC call that its client cuts off can crash the embedded Triton (2.51, server issue 7368). A call that is given up is
therefore cancelled by way of ``jobs``, and left alone until the server has answered it.
"""

Tell = Callable[["Event | DressformError | None"], None]
"""Takes the events of a watched request, and at their end an error, or None."""


class Transport(Protocol):
    """What a `Client` needs of a transport. It must be safe to use from many threads at once.

    Every method raises ``dressform.DressformError`` subclasses only.
    """

    def infer(self, request: Request) -> Outputs:
        """The output tensors that the model ``request.model`` answers."""

    def watch(self, request_id: str, tell: Tell) -> None:
        """Hands the events of the request with this id to ``tell``, in a thread of the transport's. Raises nothing."""

    def server_ready(self, timeout: float) -> bool:
        """Whether the server says it is ready, asked for at most ``timeout`` seconds."""

    def model_ready(self, model: str, timeout: float) -> bool:
        """Whether the server serves ``model``."""

    def metadata(self, timeout: float) -> Mapping[str, Any]:
        """KServe's server metadata: name, version, extensions."""

    def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """The entries of KServe's repository index."""

    def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """The entries of Triton's ``model_stats``."""

    def close(self) -> None:
        """Drops the connections."""


class AsyncTransport(Protocol):
    """What an `AsyncClient` needs of a transport: a `Transport` of coroutines. ``tell`` is called in the event loop."""

    async def infer(self, request: Request) -> Outputs:
        """See `Transport`."""

    async def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`: returns at once."""

    async def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""

    async def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""

    async def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""

    async def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""

    async def close(self) -> None:
        """See `Transport`."""


class Blocking:
    """A `Transport` as an `AsyncTransport` whose coroutines never suspend: they block instead."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def infer(self, request: Request) -> Outputs:
        """See `Transport`."""
        return self._transport.infer(request)

    async def watch(self, request_id: str, tell: Tell) -> None:
        """See `Transport`."""
        self._transport.watch(request_id, tell)

    async def server_ready(self, timeout: float) -> bool:
        """See `Transport`."""
        return self._transport.server_ready(timeout)

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        return self._transport.model_ready(model, timeout)

    async def metadata(self, timeout: float) -> Mapping[str, Any]:
        """See `Transport`."""
        return self._transport.metadata(timeout)

    async def models(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return self._transport.models(timeout)

    async def statistics(self, timeout: float) -> Sequence[Mapping[str, Any]]:
        """See `Transport`."""
        return self._transport.statistics(timeout)

    async def close(self) -> None:
        """See `Transport`."""
        self._transport.close()


@dataclass(frozen=True)
class TLS:
    """PEM files for ``grpcs://`` and ``https://``: whom to trust, and who we are (mutual TLS).

    Attributes:
        ca_file: None trusts the system's list over HTTP; over gRPC, gRPC's own or that in the environment variable
            GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
        certificate_file, key_file: our own certificate with its chain; its key may stand in the same file.

    Raises:
        InvalidRequest: if a file cannot be read, or there is a key without a certificate.
    """

    ca_file: str | os.PathLike[str] | None = None
    certificate_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.certificate_file is None:
            raise InvalidRequest(f"key_file {self.key_file} is of no use without certificate_file")
        for name, file in vars(self).items():
            try:
                if file is not None:
                    Path(file).read_bytes()
            except OSError as error:
                raise InvalidRequest(f"{name}: cannot read {file}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Settings:
    """How to talk: certificates, headers (or gRPC metadata) of every call, and compression of requests and answers."""

    tls: TLS = field(default_factory=TLS)
    headers: Mapping[str, str] = field(default_factory=dict)
    compression: Literal["gzip"] | None = None

    def __post_init__(self) -> None:
        if self.compression not in (None, "gzip"):
            raise InvalidRequest(f"compression must be 'gzip' or None, not {self.compression!r}")
        checked_headers(self.headers)


@dataclass(frozen=True)
class Address:
    """Where a server is: ``grpc://host:port``, ``grpcs://``, ``http://host:port/prefix`` or ``https://``."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in ``url``; the port may be left out.

        Raises:
            InvalidRequest: if it is none.
        """
        wrong = InvalidRequest(
            f"a server's address looks like grpc://127.0.0.1:8001 or http://127.0.0.1:8000, not {url!r}"
        )
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme, parts.hostname, parts.port
        except (ValueError, TypeError, AttributeError) as error:
            raise wrong from error
        if scheme not in _PORTS or not host or (scheme.startswith("grpc") and parts.path.strip("/")):
            raise wrong
        return cls(scheme, host, _PORTS[scheme] if port is None else port, parts.path.rstrip("/"))

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("grpcs", "https")

    @property
    def netloc(self) -> str:
        """``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.prefix}"


# gRPC and HTTP libraries are heavy, so only the one in use is imported.


def connected(url: str, settings: Settings) -> Transport:
    """A transport to the server at ``url``. It connects when first used.

    Raises:
        InvalidRequest: if ``url`` is no address, or there are certificates for a connection that is not encrypted.
    """
    address = _address(url, settings)
    if address.scheme.startswith("grpc"):
        from dressform.transports.grpc import GrpcTransport

        return GrpcTransport(address, settings)
    from dressform.transports.http import HttpTransport

    return HttpTransport(address, settings)


def async_connected(url: str, settings: Settings) -> AsyncTransport:
    """`connected` for an `AsyncClient`."""
    address = _address(url, settings)
    if address.scheme.startswith("grpc"):
        from dressform.transports.grpc_async import AsyncGrpcTransport

        return AsyncGrpcTransport(address, settings)
    from dressform.transports.http_async import AsyncHttpTransport

    return AsyncHttpTransport(address, settings)


def _address(url: str, settings: Settings) -> Address:
    address = Address.parse(url)
    if settings.tls != TLS() and not address.secure:
        raise InvalidRequest(f"tls is given, but {url} is not encrypted: write grpcs:// or https://")
    return address


def too_late(timeout: float | None, request_id: str | None) -> DeadlineExceeded:
    """The error of a request whose answer did not come within ``timeout`` seconds."""
    return DeadlineExceeded(f"no answer within {timeout or 0:g} s", request_id=request_id)
