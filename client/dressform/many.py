"""Many requests at once, a bounded number under way, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal

from dressform import results
from dressform.calls import Call, Plan, Planner, R
from dressform.core import Core
from dressform.errors import Cancelled, DressformError, InvalidRequest
from dressform.results import Result
from dressform.runtimes import Mailbox

if TYPE_CHECKING:
    from rich.progress import Progress

_PICTURES = {"tryon": ("person", "garment"), "inpaint": ("image", "mask", "prompt")}


@dataclass(frozen=True)
class Finished(Generic[R]):
    """One of many: the ``index`` and the ``input`` it was made of, and its ``result`` or its ``error``."""

    index: int
    input: Any
    result: R | None = None
    error: Exception | None = None


def many(
    core: Core,
    planner: Planner,
    task: Literal["inpaint", "tryon"],
    inputs: Iterable[Any],
    concurrency: int,
    progress: bool | None,
    keywords: Mapping[str, Any],
) -> AsyncGenerator[Finished[Result], None]:
    """The results of ``inputs`` as they finish, at most ``concurrency`` of them under way at once.

    Raises:
        InvalidRequest, TypeError: at a wrong ``concurrency`` or keyword, before anything is sent.
    """
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidRequest(f"concurrency must be an integer from 1 on, not {concurrency!r}")
    planner.plan(task, results.read, {}, None, {name: keywords[name] for name in keywords if name != "prompt"})

    def planned(given: Any) -> Plan[Result]:
        own = _keywords_of(task, given, keywords)
        if task == "tryon":
            pictures = (own.pop("person"), own.pop("garment"), own.pop("mask", None), own.pop("prompt", None))
            return planner.tryon(*pictures, own)
        return planner.inpaint(own.pop("image"), own.pop("mask"), own.pop("prompt"), own)

    return _many(core, inputs, planned, concurrency, Bar(progress, inputs, task))


async def _many(
    core: Core, inputs: Iterable[Any], planned: Callable[[Any], Plan[R]], concurrency: int, bar: Bar
) -> AsyncGenerator[Finished[R], None]:
    mailbox, waiting = core.runtime.mailbox(), iter(enumerate(inputs))
    under_way: dict[int, Call[R]] = {}
    bar.start()
    try:
        while True:
            while len(under_way) < concurrency and (following := next(waiting, None)) is not None:
                index, given = following
                try:
                    under_way[index] = core.start(planned(given), partial(_tell, mailbox, index, given))
                except (DressformError, TypeError) as error:
                    bar.count(error)
                    yield Finished(index, given, error=error)
            if not under_way:
                return
            finished = await mailbox.get()
            assert isinstance(finished, Finished)
            del under_way[finished.index]
            bar.count(finished.error)
            yield finished
    finally:
        bar.close()
        await core.runtime.finish(core.cancel_all(list(under_way.values())))


def _tell(mailbox: Mailbox, index: int, given: Any, call: Call[R]) -> None:
    error = call.error
    if error is not None and not isinstance(error, Exception):  # the event loop ends
        error = Cancelled(f"interrupted: {error!r}")
    mailbox.put(Finished(index, given, call.result, error))


def _keywords_of(task: str, given: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``Client.tryon`` or ``Client.inpaint`` for one input; its own win over ``options``.

    Raises:
        InvalidRequest: if ``given`` is neither a tuple of the pictures (and the prompt) nor a mapping of keywords.
    """
    names = _PICTURES[task]
    if isinstance(given, Mapping):
        missing = [name for name in names if name not in given]
        if missing:
            raise InvalidRequest(f"an input of {task}_many needs {', '.join(names)}; {', '.join(missing)} is missing")
        return {**options, **given}
    if isinstance(given, (tuple, list)) and len(given) == len(names):
        return {**options, **dict(zip(names, given, strict=True))}
    raise InvalidRequest(
        f"an input of {task}_many is a tuple ({', '.join(names)}) or a mapping of keywords, not {given!r:.80}"
    )


class Bar:
    """A progress bar on stderr (rich's); without one, nothing.

    Args:
        shown: None shows it on a terminal.
        inputs: counted if they have a length.
    """

    def __init__(self, shown: bool | None, inputs: object, task: str) -> None:
        self._failed = 0
        self._bar: Progress | None = None
        if not (sys.stderr.isatty() if shown is None else shown):
            return
        # Imported where somebody looks: it takes a while.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[failed]}"), console=Console(stderr=True))
        total = len(inputs) if isinstance(inputs, Sized) else None
        self._task = self._bar.add_task(task, total=total, failed="")

    def start(self) -> None:
        """Show it."""
        if self._bar is not None:
            self._bar.start()

    def count(self, error: Exception | None) -> None:
        """One more has finished."""
        if self._bar is None:
            return
        self._failed += error is not None
        self._bar.update(self._task, advance=1, failed=f"{self._failed} failed" if self._failed else "")

    def close(self) -> None:
        """Leave it as it is."""
        if self._bar is not None:
            self._bar.stop()
