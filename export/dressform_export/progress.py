"""What a command tells while it works: a spinner or a bar at a terminal, one line for each stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Stages on ``console`` (standard error unless given)."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Show ``title`` while the block runs, and the seconds it took once it has ended well."""
        began = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(title):
                yield
        else:
            yield
        self.console.print(f"{time.monotonic() - began:7.1f} s  {title}", markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Show how many of ``total`` are done: the block calls what it gets after each, from any thread."""
        if not self.console.is_terminal:
            with self.stage(f"{title}, {total}"):
                yield lambda: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=self.console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda: bar.advance(task)

    def note(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, markup=False, soft_wrap=True)


class Silence(Progress):
    """Says nothing: for callers of the library."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
