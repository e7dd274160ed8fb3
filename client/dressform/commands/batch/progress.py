"""How far a batch is: a bar with rate and time to go on a terminal, a line for each pair where piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dressform.commands.batch.pairs import Pair
from dressform.commands.batch.patience import Outage
from dressform.commands.console import Console


class Progress:
    """``total`` pairs, ``before`` of them done by an earlier run."""

    def __init__(self, console: Console, total: int, before: int, outage: Outage) -> None:
        self.total = total
        self.before = before
        self.made = 0
        self.failed = 0
        self._console = console
        self._outage = outage
        self._began = time.monotonic()
        self._advance: Any = None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Pairs made, a second."""
        return self.made / self.seconds if self.made else 0.0

    @property
    def left(self) -> int:
        """Pairs not tried yet."""
        return self.total - self.before - self.made - self.failed

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows it while the block runs."""
        if not self._console.watched:
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
        remaining = TimeRemainingColumn(elapsed_when_finished=True)
        told = _Told(self)
        # stdout stays the answer's alone.
        with Bar(*columns, remaining, console=self._console.styled(stderr=True), redirect_stdout=False) as bar:
            task = bar.add_task("", total=self.total, completed=self.before, told=told)
            self._advance = lambda: bar.advance(task)
            yield

    def made_one(self, pair: Pair, line: dict[str, Any]) -> None:
        """A pair is made."""
        self.made += 1
        # Lines on the terminal that the bar moves on would be torn.
        if self._advance is None or not sys.stdout.isatty():
            seeds = ", ".join(map(str, line["seeds"]))
            files = " ".join(map(str, pair.outputs))
            count = f"{self.before + self.made + self.failed}/{self.total}"
            self._console.say(f"{count}  {files}  seed {seeds}  {line['seconds']:.1f} s")
        self._moved()

    def failed_one(self, pair: Pair, error: Exception) -> None:
        """A pair could not be made."""
        self.failed += 1
        self._console.note(f"dressform: {pair.name} ({pair.where}): {error}")
        self._moved()

    def _moved(self) -> None:
        if self._advance is not None:
            self._advance()

    def __str__(self) -> str:
        parts = [f"{self.rate * 60:.1f}/min"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if (away := self._outage.seconds) > 0:
            parts.append(f"no answer for {away:.0f} s")
        return ", ".join(parts)


class _Told:
    """Says how a progress stands at the moment when it is formatted."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __str__(self) -> str:
        return str(self._progress)
