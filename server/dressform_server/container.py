"""The same repository on NVIDIA's own container, for machines on which the embedded server cannot run."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from dressform_server.flags import common, variables
from dressform_server.settings import Settings

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"

STAGE_PACKAGES = ("pillow>=11.0", "tokenizers>=0.22")
"""What the Python stages import and the container lacks (it has numpy)."""

TRACE_PACKAGES = ("opentelemetry-exporter-otlp-proto-http>=1.30", "opentelemetry-sdk>=1.30")
"""What sends traces."""

KEY_SHOWN = "YOUR-ADMIN-KEY"
"""Stands for the administration key, which nothing prints."""


def docker_run(settings: Settings) -> str:
    """The ``docker run`` line that serves ``settings.repository`` on the same ports of loopback."""
    inside = {"http": 8000, "grpc": 8001, "metrics": 8002}
    shown = replace(settings, host="0.0.0.0", admin_key=None if settings.admin_key is None else KEY_SHOWN)
    triton = ["tritonserver", *common(shown, Path("/models"), inside)]
    words = ["docker", "run", "--rm", "--init", "--shm-size=2g", "-e", "PIP_BREAK_SYSTEM_PACKAGES=1"]
    for name, port in settings.ports.items():
        words += ["-p", f"127.0.0.1:{port or inside[name]}:{inside[name]}"]
    packages, inside_log = list(STAGE_PACKAGES), None
    if settings.audit_log:
        words += ["-v", f"{_absolute(settings.audit_log).parent}:/audit"]
        inside_log = Path("/audit", settings.audit_log.name)
    if settings.otlp_endpoint:
        packages += TRACE_PACKAGES
    told = variables(replace(settings, audit_log=None)) | (
        {"DRESSFORM_AUDIT_LOG": str(inside_log)} if inside_log else {}
    )
    for name in ("tls_certificate", "tls_key", "tls_client_ca"):
        file: Path | None = getattr(settings, name)
        if file is not None:
            words += ["-v", f"{_absolute(file)}:{_absolute(file)}:ro"]
    for name, value in told.items():
        words += ["-e", f"{name}={value}"]
    words += ["-v", f"{_absolute(settings.repository)}:/models:ro", IMAGE]
    install = shlex.join(["pip", "install", "--quiet", *packages])
    return shlex.join([*words, "sh", "-c", f"{install} && exec {shlex.join(triton)}"])


def _absolute(path: Path) -> Path:
    return path if path.is_absolute() else Path.cwd() / path
