"""Handles: requests under way, to be watched, cancelled, and asked for their results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, Generic

from dressform.calls import Call, Plan, R
from dressform.core import Core
from dressform.progress import Progress
from dressform.runtimes import completed, iterated


class _Handle(Generic[R]):
    """What both handles know without waiting."""

    def __init__(self, core: Core, plan: Plan[R]) -> None:
        self._core = core
        self._call: Call[R] = core.start(plan)

    @property
    def id(self) -> str | None:
        """The id of the request in flight, or of the last one; None until the first is sent.

        It changes with a retry, and from one garment of an outfit to the next.
        """
        return None if self._call.request is None else self._call.request.id

    def done(self) -> bool:
        """Whether there is a result, or an error."""
        return self._call.ended


class Handle(_Handle[R]):
    """A request that a `Client` sent in the background."""

    def result(self, timeout: float | None = None) -> R:
        """The result. A KeyboardInterrupt while waiting cancels the request.

        Raises:
            TimeoutError: if there is none within ``timeout`` seconds; the request goes on.
            DressformError: if the request failed.
        """
        return completed(self._core.outcome(self._call, timeout))

    def progress(self) -> Iterator[Progress]:
        """The steps as they happen, from now on until the request is over. Raises no error of the request's own.

        A KeyboardInterrupt while waiting for the next one cancels the request; one in the loop's body does not.
        """
        return iterated(self._core.progress(self._call))

    def cancel(self) -> bool:
        """Cancel the request: the server stops working on it, and ``result`` raises ``Cancelled``.

        False if it was over already. Needs an id of 22 characters or more.

        Raises:
            ServerUnavailable: if the server cannot be told, and the request goes on.
        """
        return completed(self._core.cancel(self._call))


class AsyncHandle(_Handle[R]):
    """A request that an `AsyncClient` sent in the background; ``await`` gives its result."""

    def __await__(self) -> Generator[Any, None, R]:
        return self._core.outcome(self._call).__await__()

    async def result(self, timeout: float | None = None) -> R:
        """See `Handle.result`. Cancelling who waits cancels the request, too."""
        return await self._core.outcome(self._call, timeout)

    def progress(self) -> AsyncIterator[Progress]:
        """See `Handle.progress`. Cancelling who waits for the next step cancels the request, too."""
        return self._core.progress(self._call)

    async def cancel(self) -> bool:
        """See `Handle.cancel`."""
        return await self._core.cancel(self._call)
