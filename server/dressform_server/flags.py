"""Triton's command line, as far as the embedded server and NVIDIA's have it in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dressform_contract import FORWARDED_HEADERS
from dressform_server.access import restrictions
from dressform_server.settings import Settings

FORWARDED = f"(?i)^({'|'.join(FORWARDED_HEADERS)})$"
"""Headers that reach the stages."""

STUB_SECONDS = 120
"""For a Python process to start."""


def variables(settings: Settings) -> dict[str, str]:
    """The environment variables by which the stages know ``settings``."""
    known = {"DRESSFORM_AUDIT_LOG_MEGABYTES": str(settings.audit_log_megabytes)}
    if settings.longest_request is not None:
        known["DRESSFORM_LONGEST_REQUEST"] = str(settings.longest_request)
    if settings.audit_log is not None:
        known["DRESSFORM_AUDIT_LOG"] = str(settings.audit_log.absolute())
    if settings.otlp_endpoint is not None:
        known["DRESSFORM_OTLP_ENDPOINT"] = settings.otlp_endpoint
        known["DRESSFORM_TRACE_RATIO"] = str(settings.trace_ratio)
    return known


def common(settings: Settings, repository: Path, ports: Mapping[str, int]) -> list[str]:
    """The arguments of a Triton that serves ``repository`` on ``ports`` (http, grpc, metrics) as ``settings`` say.

    No model is loaded, unloaded or completed by anybody but the repository, and ready is who has every model.
    """
    arguments = [
        f"--model-repository={repository}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-on-error=true",
        f"--exit-timeout-secs={settings.exit_timeout}",
        *restrictions(settings.admin_key),
        *(f"--{protocol}-header-forward-pattern={FORWARDED}" for protocol in ("http", "grpc")),
    ]
    for name, port in ports.items():
        arguments += [f"--{name}-address={settings.host}", f"--{name}-port={port}"]
    arguments += _tls(settings)
    if settings.engine is not None:
        arguments.append(f"--model-config-name={settings.engine}")
    return arguments


def patience(backends: Iterable[str]) -> list[str]:
    """How long a process of ``backends`` (``python``, or ones written in it) may take to start.

    Triton's own 30 s are short for ten interpreters at once on a machine that is busy or reads from a slow disk.
    """
    return [f"--backend-config={backend},stub-timeout-seconds={STUB_SECONDS}" for backend in backends]


def _tls(settings: Settings) -> list[str]:
    if settings.tls_certificate is None or settings.tls_key is None:
        return []
    mutual = settings.tls_client_ca is not None
    files = {
        "server-cert": settings.tls_certificate,
        "server-key": settings.tls_key,
        "root-cert": settings.tls_client_ca,
    }
    named = [f"--grpc-{name}={file.absolute()}" for name, file in files.items() if file is not None]
    return [f"--grpc-use-ssl{'-mutual' if mutual else ''}=true", *named]
