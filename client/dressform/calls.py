"""Calls: what was asked for (`Plan`), and where it stands (`Call`)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dressform import results, tracing
from dressform.options import as_parameters, checked_headers
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

    def fittings(self) -> Sequence[Fitting | None]:
        """The passes: one for each garment of a try-on, else one None."""
        if self.task != "tryon":
            return [None]
        return fittings(self.pictures["garment"], self.pictures.get("mask"), self.request_id, self.options)


@dataclass(frozen=True)
class Planner:
    """Makes plans; ``timeout`` and ``retry`` are the client's own."""

    timeout: float | None
    retry: Retry

    def inpaint(self, image: Any, mask: Any, prompt: str, keywords: Mapping[str, Any]) -> Plan[Result]:
        """The plan of ``inpaint``."""
        return self.plan("inpaint", results.read, {"image": image, "mask": mask}, prompt, keywords)

    def tryon(
        self, person: Any, garment: Any, mask: Any, prompt: str | None, keywords: Mapping[str, Any]
    ) -> Plan[Result]:
        """The plan of ``tryon``."""
        pictures = {"person": person, "garment": garment, "mask": mask}
        return self.plan("tryon", results.read, pictures, prompt, keywords)

    def mask(self, person: Any, keywords: Mapping[str, Any]) -> Plan[MaskResult]:
        """The plan of ``mask``."""
        return self.plan("mask", results.read_mask, {"person": person}, None, keywords)

    def plan(
        self,
        task: Task,
        read: Callable[[Outputs, str], R],
        pictures: Mapping[str, Any],
        prompt: str | None,
        keywords: Mapping[str, Any],
    ) -> Plan[R]:
        """The plan of ``task``.

        Raises:
            InvalidRequest, TypeError: at an unknown keyword, as ``options.as_parameters`` does.
        """
        options = dict(keywords)
        own = {name: options.pop(name, None) for name in ("request_id", "timeout", "retries", "headers")}
        texts = {"prompt": prompt, "negative_prompt": options.pop("negative_prompt", None)}
        parameters = as_parameters(options)
        return Plan(
            task=task,
            read=read,
            pictures=pictures,
            texts=texts,
            options=parameters if task == "mask" else _seeded(parameters),
            retry=self.retry if own["retries"] is None else Retry.of(own["retries"]),
            request_id=own["request_id"],
            timeout=self.timeout if own["timeout"] is None else own["timeout"],
            headers={**tracing.current(), **checked_headers(own["headers"])},
        )


def _seeded(options: Mapping[str, object]) -> dict[str, object]:
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
