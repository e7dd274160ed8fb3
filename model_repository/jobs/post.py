"""What the stages tell the stage ``jobs`` about requests: JSON in Unix datagrams. No Triton here.

The socket lies beside the job table, for this user alone. A message costs the stage that sends it an append to a queue;
a thread of its own does the rest.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.entry import Slot
from jobs.shared_file import POST_SUFFIX, server_path

MAX_BYTES = 2**17
SEND_SECONDS = 2.0
"""How long the stage ``jobs`` may keep a sender waiting before the message is lost."""
_AT_ONCE = 1000


def post_path() -> Path:
    """Where this stage's server has its socket."""
    return server_path().with_suffix(POST_SUFFIX)


class Post:
    """Sends messages to the mailbox at ``path``; ``warn`` hears, once, that they are being lost."""

    def __init__(self, warn: Callable[[str], None], path: Path | None = None) -> None:
        self._path = path or post_path()
        self._warn = warn
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_SECONDS)
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="post", daemon=True)
        self._thread.start()

    def tell(self, slot: Slot | None, **news: Any) -> None:
        """What is new of the request in ``slot``, as `jobs.ledger.Account` names it; None: all there is to know."""
        place = None if slot is None else [slot.number, slot.generation]
        self._queue.put(json.dumps({"slot": place, **news}).encode())

    def close(self) -> None:
        """Send what is left, and end."""
        self._queue.put(None)
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        lost = 0
        while (message := self._queue.get()) is not None:
            try:
                self._socket.sendto(message, str(self._path))
            except OSError as error:
                lost += 1
                if lost == 1:
                    self._warn(f"what is told of requests does not reach the stage jobs: {error}")


class Mailbox:
    """Receives the messages sent to ``path``; ``warn`` hears of those that cannot be read."""

    def __init__(self, warn: Callable[[str], None], path: Path | None = None) -> None:
        self._path = path or post_path()
        self._warn = warn
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(FileNotFoundError):
            self._path.unlink()
        before = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        finally:
            os.umask(before)

    def messages(self, seconds: float) -> list[dict[str, Any]]:
        """What has come, after waiting at most ``seconds`` for the first."""
        found: list[dict[str, Any]] = []
        self._socket.settimeout(seconds)
        with suppress(TimeoutError, BlockingIOError):
            while len(found) < _AT_ONCE:
                message = self._socket.recv(MAX_BYTES)
                self._socket.setblocking(False)
                try:
                    found.append(json.loads(message))
                except ValueError as error:
                    self._warn(f"what was told of a request cannot be read: {error}")
        return found

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)
