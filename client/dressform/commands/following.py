"""A single request under way: its progress on a terminal, its cancellation by Ctrl-C."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dressform.client import Client
from dressform.commands import Connect
from dressform.commands.console import Console
from dressform.commands.exits import DONE
from dressform.commands.results import Output, keywords, report
from dressform.errors import DressformError
from dressform.handles import Handle
from dressform.progress import Progress
from dressform.results import Result

if TYPE_CHECKING:
    from rich.console import RenderableType

Submit = Callable[[Client, Mapping[str, Any]], Handle[Result]]
"""Sends a request with these keywords."""

_REDRAW_SECONDS = 0.2
_PREVIEW_EVERY = 2


def add_preview(parser: argparse.ArgumentParser) -> None:
    """The flag that shows pictures."""
    parser.add_argument(
        "--preview",
        action="store_true",
        help="show the picture in the terminal while it is made, and when it is: by kitty's or iTerm2's graphics or "
        "sixels, else in coloured half blocks",
    )


def run(submit: Submit, options: argparse.Namespace, console: Console, connect: Connect, output: Output) -> int:
    """Sends what ``submit`` sends, follows it, and writes its result."""
    words = keywords(options)
    if options.preview and console.watched:
        words.setdefault("preview_every", _PREVIEW_EVERY)
    began = time.monotonic()
    with connect(options) as client:
        result = _followed(submit(client, words), console, options.preview)
    report(result, output, console, time.monotonic() - began)
    return DONE


def _followed(handle: Handle[Result], console: Console, pictures: bool) -> Result:
    """The result of ``handle``, which Ctrl-C cancels; on a terminal its progress too, with ``pictures`` of it."""
    try:
        if console.watched:
            return _shown(handle, console, pictures)
        result = handle.result()
    except KeyboardInterrupt:
        with suppress(DressformError):
            handle.cancel()
        raise
    if pictures:
        console.show(result.images)
    return result


def _shown(handle: Handle[Result], console: Console, pictures: bool) -> Result:
    from rich.console import Group
    from rich.live import Live

    from dressform.commands.drawing import Canvas

    styled = console.styled(stderr=True)
    canvas = Canvas(styled) if pictures else None
    steps = _Steps()
    drawn: RenderableType | None = None
    shown = 0.0
    # Pictures are large: they are drawn when there is news, not ten times a second.
    with Live(console=styled, auto_refresh=canvas is None, transient=True) as live:
        # A request that cannot be watched, as its id is too short, is waited for all the same.
        with suppress(DressformError):
            for news in handle.progress():
                steps.tell(news)
                if canvas is not None and news.preview is not None:
                    drawn = canvas.picture([news.preview])
                now = time.monotonic()
                if canvas is None:
                    live.update(steps.bar)
                elif now - shown >= _REDRAW_SECONDS:
                    live.update(Group(*([] if drawn is None else [drawn]), steps.bar), refresh=True)
                    shown = now
        result = handle.result()
        if canvas is not None:
            live.transient = False
            live.update(canvas.picture(result.images), refresh=True)
    return result


class _Steps:
    """The bar of one request: its state, its steps, and the seconds to the last of them."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Bar(*columns, TextColumn("{task.fields[eta]}"))
        self._task = self.bar.add_task("sending", total=None, eta="")

    def tell(self, news: Progress) -> None:
        """There is news."""
        state = f"waiting, {news.position} before it" if news.state == "waiting" and news.position else news.state
        eta = "" if news.eta is None or news.state != "running" else f"{news.eta:.0f} s left"
        self.bar.update(self._task, description=state, completed=news.step, total=news.total or None, eta=eta)
