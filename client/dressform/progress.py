"""Progress: a request's steps as the server tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from dressform.errors import ServerError
from dressform.pictures import decoded

State = Literal["preparing", "waiting", "running", "decoding", "done", "failed", "cancelled"]
Event = Mapping[str, Any]
"""What ``watch`` answers: state, step, total, position, eta_ms, and preview if there is a new one."""


@dataclass(frozen=True)
class Progress:
    """Where a request stands.

    Attributes:
        state: preparing, waiting, running, decoding, done, failed or cancelled.
        step, total: denoising steps done, and all of them; each garment of an outfit, and each retry, counts anew.
        position: jobs before it in the queue.
        eta: seconds to its last step, None where unknown.
        preview: a small picture of what it will be, as often as ``preview_every`` says.
        request_id: of the request that this is about.
    """

    state: State
    step: int
    total: int
    position: int
    eta: float | None
    preview: Image.Image | None
    request_id: str

    @property
    def ended(self) -> bool:
        """Whether the request is over."""
        return self.state in ("done", "failed", "cancelled")

    @classmethod
    def of(cls, event: Event, request_id: str) -> Progress:
        """The progress in an event of ``watch``.

        Raises:
            ServerError: if it cannot be read.
        """
        try:
            preview = event.get("preview")
            return cls(
                state=event["state"],
                step=int(event["step"]),
                total=int(event["total"]),
                position=int(event["position"]),
                eta=None if event["eta_ms"] < 0 else event["eta_ms"] / 1000,
                preview=None if preview is None else decoded(str(preview).encode()),
                request_id=request_id,
            )
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ServerError(f"an event of watch cannot be read: {error!r}", request_id=request_id) from error
