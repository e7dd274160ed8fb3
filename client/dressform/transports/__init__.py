"""Transports: how a request reaches the server. Each is thin: it carries bytes, and turns foreign errors into ours.

A transport can be given to ``Client`` instead of an address, so code that uses a client is tested without a server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from dressform.errors import InvalidRequest
from dressform.requests import Request
from dressform.results import Outputs

_PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}

CONNECT_SECONDS = 10.0
"""Longest wait for a connection to be made."""


class Transport(Protocol):
    """What a client needs of a transport. It must be safe to use from many threads at once.

    Every method raises ``dressform.DressformError`` subclasses only.
    """

    def infer(self, request: Request) -> Outputs:
        """The output tensors that the model ``request.model`` answers."""

    def server_ready(self, timeout: float) -> bool:
        """Whether the server says it is ready, asked for at most ``timeout`` seconds."""

    def model_ready(self, model: str, timeout: float) -> bool:
        """Whether the server serves ``model``."""

    def close(self) -> None:
        """Drops the connections."""


@dataclass(frozen=True)
class TLS:
    """PEM files for ``grpcs://`` and ``https://``: whom to trust (None: the system's list), who we are (mutual TLS)."""

    ca_file: str | os.PathLike[str] | None = None
    certificate_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None


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


def connected(url: str, tls: TLS | None = None) -> Transport:
    """A transport to the server at ``url``. It connects when first used.

    Raises:
        InvalidRequest: if ``url`` is no address.
    """
    address = Address.parse(url)
    # gRPC and HTTP libraries are heavy, so only the one in use is imported.
    if address.scheme.startswith("grpc"):
        from dressform.transports.grpc import GrpcTransport

        return GrpcTransport(address, tls or TLS())
    from dressform.transports.http import HttpTransport

    return HttpTransport(address, tls or TLS())


def tensors(kind: Any, inputs: Mapping[str, bytes]) -> list[Any]:
    """``inputs`` as BYTES tensors ``[1, 1]`` of tritonclient's class ``kind`` (gRPC and HTTP have one each)."""
    import numpy as np

    return [
        kind(name, [1, 1], "BYTES").set_data_from_numpy(np.array([[data]], dtype=object))
        for name, data in inputs.items()
    ]
