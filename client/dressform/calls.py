"""Calls: what was asked for (`Plan`), and where it stands (`Call`)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dressform.requests import Fitting, Request, fittings
from dressform.results import MaskResult, Outputs, Result
from dressform.retries import Retry
from dressform_contract import Task

if TYPE_CHECKING:
    from dressform.runtimes import Mailbox

SEEDS = 2**32
"""Where the client draws a seed, so that a repeat gives the same picture: below this."""

R = TypeVar("R", bound="Result | MaskResult")


@dataclass(frozen=True)
class Plan(Generic[R]):
    """A call of ``inpaint``, ``tryon`` or ``mask``: ``read`` makes its result of output tensors and a request id."""

    task: Task
    read: Callable[[Outputs, str], R]
    pictures: Mapping[str, Any]
    texts: Mapping[str, str | None]
    options: Mapping[str, object]
    retry: Retry
    request_id: str | None = None
    timeout: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def fittings(self) -> Iterator[Fitting | None]:
        """The passes: one for each garment of a try-on, else one None."""
        if self.task != "tryon":
            return iter([None])
        return fittings(self.pictures["garment"], self.pictures.get("mask"), self.request_id, self.options)


def seeded(options: Mapping[str, object]) -> dict[str, object]:
    """``options`` with a seed, drawn if there is none."""
    seed = options.get("seed")
    return {**options, "seed": secrets.randbelow(SEEDS) if seed is None else seed}


@dataclass(frozen=True)
class Ended:
    """News of a call: it is over."""


@dataclass(frozen=True)
class CancelAsked:
    """News of a call: its caller does not want it any more."""


class Call(Generic[R]):
    """One call under way, and in the end its result or error.

    Its news (a `Request` that goes out, `CancelAsked`, `Ended`) reach every listener.
    """

    def __init__(self, plan: Plan[R]) -> None:
        self.plan = plan
        self.request: Request | None = None
        self.cancelled = False
        self.ended = False
        self.result: R | None = None
        self.error: BaseException | None = None
        self._listeners: list[Mailbox] = []
        self._lock = threading.Lock()

    def listen(self, mailbox: Mailbox) -> None:
        """Tell ``mailbox`` the latest news and all that come."""
        with self._lock:
            self._listeners.append(mailbox)
            if self.request is not None:
                mailbox.put(self.request)
            if self.cancelled:
                mailbox.put(CancelAsked())
            if self.ended:
                mailbox.put(Ended())

    def unlisten(self, mailbox: Mailbox) -> None:
        """Tell ``mailbox`` nothing more."""
        with self._lock:
            self._listeners.remove(mailbox)

    def send(self, request: Request) -> None:
        """``request`` goes out now."""
        with self._lock:
            self.request = request
            self._tell(request)

    def cancel(self) -> None:
        """The caller gave up: no other try, no other garment."""
        with self._lock:
            if not self.cancelled:
                self.cancelled = True
                self._tell(CancelAsked())

    def end(self) -> None:
        """Nothing more will come."""
        with self._lock:
            self.ended = True
            self._tell(Ended())

    def _tell(self, news: object) -> None:
        for mailbox in self._listeners:
            mailbox.put(news)
