"""What a server says of itself: its health, its models, and their statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dressform.errors import DressformError, ServerError
from dressform.results import Outputs


@dataclass(frozen=True)
class Health:
    """Whether a server can take requests.

    Attributes:
        ready: whether it can.
        tasks: what it serves.
        reason: why it is not ready.
        server: name and version of the program ("triton 2.51.0").
        error: what asking it ended in, if it did.
    """

    ready: bool
    tasks: tuple[str, ...] = ()
    reason: str = ""
    server: str = ""
    error: DressformError | None = None

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
class About:
    """What a server can do.

    Attributes:
        tryon: whether its weights learned to read a garment.
        parser: whether it makes masks by itself.
        height, width: processing size of a request that asks for none, in pixels.
        minimum, maximum, multiple_of: what a height or width may be.
        num_inference_steps, solver: those of a request that asks for none.
        feedback: whether it records ratings.
    """

    tryon: bool
    parser: bool
    height: int
    width: int
    minimum: int
    maximum: int
    multiple_of: int
    num_inference_steps: int
    solver: str
    feedback: bool

    @classmethod
    def of(cls, outputs: Outputs) -> About:
        """The answer of ``jobs`` to "about".

        Raises:
            ServerError: if it cannot be read.
        """
        try:
            answer = json.loads(outputs["jobs"].reshape(-1)[0])
            return cls(
                tryon=answer["tryon"] != "none",
                parser=bool(answer["parser"]),
                **{
                    name: int(answer["size"][name]) for name in ("height", "width", "minimum", "maximum", "multiple_of")
                },
                num_inference_steps=int(answer["defaults"]["num_inference_steps"]),
                solver=str(answer["defaults"]["solver"]),
                feedback=bool(answer["feedback"]),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(f"the server's answer about itself cannot be read: {error!r}") from error


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
