"""What a server says of itself: its health, its models, and their statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Health:
    """Whether a server can take requests.

    Attributes:
        ready: whether it can.
        tasks: what it serves.
        reason: why it is not ready.
        server: name and version of the program ("triton 2.51.0").
    """

    ready: bool
    tasks: tuple[str, ...] = ()
    reason: str = ""
    server: str = ""

    def __bool__(self) -> bool:
        return self.ready


@dataclass(frozen=True)
class Model:
    """A model in the server's repository: ``ready`` or the ``reason`` why not."""

    name: str
    version: str
    ready: bool
    reason: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Model:
        """The model in an entry of KServe's repository index."""
        return cls(
            str(entry["name"]),
            str(entry.get("version", "")),
            entry.get("state") == "READY",
            str(entry.get("reason", "")),
        )


@dataclass(frozen=True)
class ModelStatistics:
    """What one model did since the server started.

    ``succeeded`` and ``failed`` count requests, ``executions`` the batches they ran in; times are sums over the
    requests that succeeded, in seconds. Triton counts every step of ``denoise`` as a request; those of ``inpaint``,
    ``tryon`` and ``mask`` are the clients'.
    """

    name: str
    version: str
    succeeded: int
    failed: int
    executions: int
    request_seconds: float
    queue_seconds: float
    compute_seconds: float

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> ModelStatistics:
        """The statistics in an entry of Triton's ``model_stats`` (64-bit integers may be strings, as in protobuf)."""
        kinds: Mapping[str, Any] = entry.get("inference_stats", {})

        def count(kind: str) -> int:
            return int(kinds.get(kind, {}).get("count", 0))

        def seconds(*names: str) -> float:
            return sum(int(kinds.get(kind, {}).get("ns", 0)) for kind in names) / 1e9

        return cls(
            name=str(entry["name"]),
            version=str(entry.get("version", "")),
            succeeded=count("success"),
            failed=count("fail"),
            executions=int(entry.get("execution_count", 0)),
            request_seconds=seconds("success"),
            queue_seconds=seconds("queue"),
            compute_seconds=seconds("compute_input", "compute_infer", "compute_output"),
        )
