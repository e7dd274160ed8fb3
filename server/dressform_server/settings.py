"""What a server is started with, validated where it is made."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from dressform_server.errors import SettingsError
from dressform_server.lines import FORMATS

THREADS_VARIABLE = "DRESSFORM_ENGINE_THREADS"
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Settings:
    """Options of one embedded server.

    ``repository`` is an exported model repository. Ports are 1 to 65535, or 0 for a free one. ``host`` is the
    address that all three ports bind to. ``log`` is a file that gets every line of Triton's log (appended).
    ``audit_log`` is a file that gets a line of JSON for each request that is over and for each feedback; without it
    feedback is refused. It is renamed when it would grow beyond ``audit_log_megabytes`` (0: never). ``otlp_endpoint``
    is the address of an OpenTelemetry receiver (OTLP over HTTP), such as http://127.0.0.1:4318; None: no traces.
    ``trace_ratio`` is the share of requests, 0 to 1, that are traced where the caller does not say.
    ``engine`` is one that the repository was exported for; None is the first of them. ``exit_timeout`` is how many
    seconds requests in flight get to finish at a stop. ``longest_request`` is how many seconds any request may take:
    one that cannot make it is refused or dropped; None: as long as it takes. ``onnx_threads`` is the number of threads
    of one call of a graph, whatever the engine; None is every usable core. ``tls_certificate`` and ``tls_key`` (PEM
    files) encrypt gRPC; with ``tls_client_ca`` clients must show a certificate that one of its authorities signed.
    ``log_format`` is text or json (see `lines`). ``admin_key`` opens the administration of the server (see
    `access`); None refuses it to everybody. ``triton_options`` go to Triton's command line as they are.
    """

    repository: Path
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    host: str = "127.0.0.1"
    log: Path | None = None
    audit_log: Path | None = None
    audit_log_megabytes: int = 100
    otlp_endpoint: str | None = None
    trace_ratio: float = 1.0
    engine: str | None = None
    exit_timeout: int = 30
    longest_request: int | None = None
    onnx_threads: int | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    log_format: str = "text"
    admin_key: str | None = field(default=None, repr=False)
    triton_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, port in self.ports.items():
            if not 0 <= port <= 65535:
                raise SettingsError(f"{name} port must be from 0 (a free one) to 65535, not {port}")
        chosen = [port for port in self.ports.values() if port]
        if len(set(chosen)) < len(chosen):
            raise SettingsError(f"the three ports must differ, not be {', '.join(map(str, self.ports.values()))}")
        if self.exit_timeout < 0:
            raise SettingsError(f"exit timeout must be at least 0 seconds, not {self.exit_timeout}")
        if self.longest_request is not None and self.longest_request < 1:
            raise SettingsError(f"longest request must be at least 1 second, not {self.longest_request}")
        if self.onnx_threads is not None and self.onnx_threads < 1:
            raise SettingsError(f"ONNX threads must be at least 1, not {self.onnx_threads}")
        if self.audit_log is not None and not self.audit_log.absolute().parent.is_dir():
            raise SettingsError(f"audit log: there is no folder {str(self.audit_log.parent)!r}: make it first")

        if self.audit_log_megabytes < 0:
            raise SettingsError(f"audit log megabytes must be at least 0 (no limit), not {self.audit_log_megabytes}")
        if self.otlp_endpoint is not None and not re.fullmatch(r"https?://[^/?#]+/?", self.otlp_endpoint):
            raise SettingsError(f"OTLP endpoint must be http://HOST:PORT, not {self.otlp_endpoint!r}")
        if self.log_format not in FORMATS:
            raise SettingsError(f"log format must be one of {', '.join(FORMATS)}, not {self.log_format!r}")
        self._check_tls()
        if not 0 <= self.trace_ratio <= 1:
            raise SettingsError(f"trace ratio must be from 0 to 1, not {self.trace_ratio}")

    def _check_tls(self) -> None:
        certificate, key, authority = self.tls_certificate, self.tls_key, self.tls_client_ca
        if (certificate is None) != (key is None) or (certificate is None and authority is not None):
            raise SettingsError("TLS needs both, the certificate and its key")
        for file in (certificate, key, authority):
            if file is not None and not os.access(file, os.R_OK):
                raise SettingsError(f"TLS: {str(file)!r} cannot be read")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            if certificate is not None:
                context.load_cert_chain(certificate, key)
        except OSError as error:  # SSLError is one
            raise SettingsError(f"TLS: {str(certificate)!r} and {str(key)!r} are no certificate and its key") from error
        try:
            if authority is not None:
                context.load_verify_locations(authority)
        except OSError as error:  # SSLError is one
            raise SettingsError(f"TLS: {str(authority)!r} has no certificate of an authority") from error

    @property
    def ports(self) -> dict[str, int]:
        """The port of each protocol: http, grpc, metrics."""
        return {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}

    @property
    def exposed(self) -> bool:
        """Whether the server can be reached from other machines."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True


def leaf_threads() -> int:
    """Threads of one call of a graph, in a stub of a server of ours; 0 (the engine's own choice) elsewhere."""
    return int(os.environ.get(THREADS_VARIABLE, "0"))


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the container's CPU quota (cgroup v2 ``cpu.max``)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores
