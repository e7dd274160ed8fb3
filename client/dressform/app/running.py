"""A request under way: a thread follows it, so that the page can look at any time and stays quick."""

from __future__ import annotations

import threading
from contextlib import suppress

from PIL import Image

from dressform import DressformError, Handle, Progress, Result


class Running:
    """Follows ``handle``, a request of ``passes`` pictures one after another.

    Attributes:
        result, error: how it ended, once ``done``.
        preview: the latest small picture of what it will be.
        cancelled: whether somebody asked to end it.
    """

    def __init__(self, handle: Handle[Result], passes: int = 1) -> None:
        self.result: Result | None = None
        self.error: DressformError | None = None
        self.preview: Image.Image | None = None
        self.cancelled = False
        self._handle = handle
        self._passes = passes
        self._ids: list[str] = []
        self._latest: Progress | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._follow, name="dressform page", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it is over within ``seconds``."""
        return self._ended.wait(seconds)

    def cancel(self) -> None:
        """Ask the server to end it. That may take until its next step, so a thread asks."""
        self.cancelled = True
        threading.Thread(target=self._cancel, daemon=True).start()

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        news = self._latest
        if news is None:
            return 0.0
        step = news.step / news.total if news.total else 0.0
        return min(1.0, (max(0, len(self._ids) - 1) + step) / self._passes)

    @property
    def sentence(self) -> str:
        """Where it stands, in words."""
        if self.cancelled:
            return "Cancelling: the server ends it before its next step."
        return said(self._latest, len(self._ids), self._passes)

    def _follow(self) -> None:
        with suppress(DressformError):  # of progress alone: the result says what went wrong
            for news in self._handle.progress():
                name = news.request_id.partition("-retry")[0]
                if name not in self._ids:
                    self._ids.append(name)
                self._latest = news
                self.preview = news.preview or self.preview
        try:
            self.result = self._handle.result()
        except DressformError as error:
            self.error = error
        finally:
            self._ended.set()

    def _cancel(self) -> None:
        with suppress(DressformError):  # a server that cannot be asked: the result says so
            self._handle.cancel()


def said(news: Progress | None, number: int, passes: int) -> str:
    """``news`` of pass ``number`` (1, 2, …) in words."""
    text = _state(news)
    if passes > 1 and number:
        return f"Garment {number} of {passes}: {text}"
    return text[0].upper() + text[1:]


def _state(news: Progress | None) -> str:
    if news is None or news.state == "preparing":
        return "reading the pictures…"
    if news.state == "waiting":
        return f"waiting, {news.position} before it" if news.position else "waiting, it is next"
    if news.state == "running":
        left = f", about {news.eta:.0f} s left" if news.eta is not None and news.eta >= 1 else ""
        return f"step {news.step} of {news.total}{left}"
    return "painting the picture…" if news.state == "decoding" else news.state
