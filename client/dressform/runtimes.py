"""Runtimes: what the shared core needs of the world it runs in, threads or an event loop.

The core is written once, as coroutines. `Client` runs them on `Threads`, where nothing ever suspends: a coroutine then
ends at its first step, and `completed` gives its value. `AsyncClient` runs the same coroutines on its event loop.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Mailbox(Protocol):
    """News in order of arrival."""

    def put(self, news: object) -> None:
        """Add ``news``. Never waits."""

    async def get(self, timeout: float | None = None) -> object | None:
        """The next news, or None if there are none within ``timeout`` seconds."""


class Runtime(Protocol):
    """Threads or an event loop."""

    def mailbox(self) -> Mailbox:
        """An empty one."""

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The value of a function that keeps a processor busy."""

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """The value of ``work``, which runs to its end even if who waits for it is cancelled."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in the background."""

    async def drain(self, timeout: float) -> None:
        """Wait for what runs in the background, for at most ``timeout`` seconds."""


def completed(work: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that never suspends.

    Raises:
        RuntimeError: if it does, which means that it awaits something of an event loop.
    """
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise RuntimeError("a coroutine of the client waits for an event loop in a thread that has none")


def iterated(stream: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The values of an asynchronous generator that never suspends."""
    try:
        while True:
            try:
                value = completed(stream.__anext__())
            except StopAsyncIteration:
                return
            yield value
    finally:
        completed(stream.aclose())


class Threads:
    """A `Runtime` in which waiting blocks the thread."""

    class Box:
        """See `Mailbox`."""

        def __init__(self) -> None:
            self._news: queue.SimpleQueue[object] = queue.SimpleQueue()
            self.put = self._news.put

        async def get(self, timeout: float | None = None) -> object | None:
            """See `Mailbox`."""
            try:
                return self._news.get(timeout=timeout)
            except queue.Empty:
                return None

    def __init__(self) -> None:
        self._running: set[threading.Thread] = set()

    def mailbox(self) -> Mailbox:
        """See `Runtime`."""
        return self.Box()

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Runtime`."""
        return function(*args, **kwargs)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Runtime`."""
        return await work

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """See `Runtime`."""
        thread = threading.Thread(target=self._run, args=(work,), name="dressform", daemon=True)
        self._running.add(thread)
        thread.start()

    async def drain(self, timeout: float) -> None:
        """See `Runtime`."""
        end = time.monotonic() + timeout
        while (running := list(self._running)) and (left := end - time.monotonic()) > 0:
            running[0].join(left)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            completed(work)
        finally:
            self._running.discard(threading.current_thread())
