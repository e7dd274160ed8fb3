"""Retries: which failures are worth another try, and how long to wait for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dressform.errors import DressformError, InvalidRequest, Overloaded, ServerUnavailable
from dressform_contract import ERRORS


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with jitter, within a budget.

    A repeat is safe: the client sends the seed, so it gives the same picture. Repeated are ``ServerUnavailable``,
    ``Overloaded`` and what the contract calls retryable; never a request that is wrong, too late or cancelled.

    Attributes:
        retries: tries after the first one.
        seconds: after the first try, in which another may begin.
        first, longest: bounds of the wait in seconds; it doubles from ``first`` on, and the last half of it is random.
            What a full server asks for (``retry_after``) comes on top.
        first_contact: whether a server that has not answered this client yet is tried again, too. False tells of a
            wrong address at once.
    """

    retries: int = 3
    seconds: float = 60.0
    first: float = 0.5
    longest: float = 10.0
    first_contact: bool = True

    def __post_init__(self) -> None:
        for name in ("retries", "seconds", "first", "longest"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise InvalidRequest(f"{name} of a Retry must be a number from 0 on, not {value!r}")

    @classmethod
    def of(cls, given: int | Retry) -> Retry:
        """``given``, where a number stands for that many retries."""
        return given if isinstance(given, Retry) else cls(given)

    def pause(
        self,
        error: DressformError,
        failures: int,
        elapsed: float,
        left: float | None = None,
        met: bool = True,
        chance: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds to wait after the failure number ``failures``, or None for no other try.

        Args:
            elapsed: seconds since the first try.
            left: seconds to the deadline, None where there is none.
            met: whether the server has answered this client before.
            chance: draws from [0, 1).
        """
        if failures > self.retries or not self.retryable(error) or not (met or self.first_contact):
            return None
        pause = min(self.longest, self.first * 2.0 ** min(failures - 1, 64)) * (0.5 + 0.5 * chance())
        if isinstance(error, Overloaded):
            pause += error.retry_after
        late = elapsed + pause > self.seconds or (left is not None and pause >= left)
        return None if late else pause

    @staticmethod
    def retryable(error: DressformError) -> bool:
        """Whether the same request may succeed later."""
        if error.code is not None:
            return ERRORS[error.code].retryable
        return isinstance(error, (ServerUnavailable, Overloaded))
