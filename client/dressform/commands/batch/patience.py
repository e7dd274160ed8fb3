"""Patience: how a batch outlasts a server that goes away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dressform.errors import DressformError, Overloaded, ServerError, ServerUnavailable
from dressform.retries import Retry

_GAP_SECONDS = 60.0
_RETRIES = 6


class Outage:
    """For how long nobody has reached the server. Safe to use from many threads.

    Args:
        began: told the error that begins an outage.
        clock: gives seconds.
    """

    def __init__(
        self,
        began: Callable[[DressformError], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = began
        self._clock = clock
        self._began: float | None = None
        self._latest = 0.0
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """How long it has lasted; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else self._clock() - began

    def failed(self, error: DressformError) -> float:
        """Nobody answered now; how long it has lasted."""
        with self._lock:
            now = self._clock()
            # Tries are closer together than this, so in a longer gap a request was at work, and the server there.
            new = self._began is None or now - self._latest > _GAP_SECONDS
            if new:
                self._began = now
            self._latest = now
            assert self._began is not None
            lasted = now - self._began
        if new:
            self._tell(error)
        return lasted

    def over(self) -> None:
        """The server answered."""
        with self._lock:
            self._began = None


@dataclass(frozen=True)
class Patience(Retry):
    """Waits up to ``seconds`` for a server that is away, counted from when it went, and as long for one that is full.

    A server that fails (a graph did, or a stage of Triton's died and its supervisor has not noticed yet) has six tries.
    """

    retries: int = 1_000_000
    seconds: float = 600.0
    outage: Outage = field(default_factory=Outage)

    def pause(self, error: DressformError, failures: int, elapsed: float, *rest: Any, **named: Any) -> float | None:
        """See `Retry.pause`."""
        if isinstance(error, ServerUnavailable):
            elapsed = self.outage.failed(error)
        else:
            self.outage.over()
            if failures > _RETRIES and not isinstance(error, Overloaded):
                return None
        return super().pause(error, failures, elapsed, *rest, **named)

    @staticmethod
    def retryable(error: DressformError) -> bool:
        """See `Retry.retryable`."""
        return Retry.retryable(error) or (isinstance(error, ServerError) and error.code is None)
