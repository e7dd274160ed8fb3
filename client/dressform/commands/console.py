"""What a command says: answers on stdout, everything else on stderr; styled on a terminal, plain where piped.

With ``--json`` stdout is one JSON document, whatever happens after the arguments were read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dressform.commands.exits import FAILED, code_of
from dressform.errors import DressformError, Overloaded

if TYPE_CHECKING:
    import rich.console
    from PIL import Image

# rich takes a while to import, and is of no use where nobody looks: hence the imports within functions.


class Console:
    """Where a command writes. ``json``: whether a program reads its answer."""

    def __init__(self, json: bool = False) -> None:
        self.json = json

    @property
    def watched(self) -> bool:
        """Whether somebody sees progress: stderr is a terminal that can move its cursor."""
        return sys.stderr.isatty() and self.styled(stderr=True).is_terminal

    def styled(self, stderr: bool = False) -> rich.console.Console:
        """rich's console on stdout or stderr."""
        import rich.console

        return rich.console.Console(stderr=stderr, highlight=False)

    def say(self, line: str) -> None:
        """A line of the answer, for people."""
        if not self.json:
            print(harmless(line), flush=True)

    def answer(self, document: Any) -> None:
        """The answer, for programs."""
        if self.json:
            print(json.dumps(document, ensure_ascii=False), flush=True)

    def note(self, line: str) -> None:
        """A line beside the answer."""
        print(harmless(line), file=sys.stderr, flush=True)

    def warn(self, sentence: str) -> None:
        """A warning."""
        self.note(f"dressform: warning: {sentence}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people: with lines on a terminal, columns of words where piped."""
        if self.json:
            return
        rows = [[harmless(cell) for cell in row] for row in rows]
        if sys.stdout.isatty():
            from rich.table import Table
            from rich.text import Text

            drawn = Table(*columns)
            for row in rows:
                drawn.add_row(*(Text(cell) for cell in row))
            self.styled().print(drawn)
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows)]
        for row in (columns, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

    def show(self, pictures: Sequence[Image.Image]) -> None:
        """Pictures, side by side, on stderr; a note where that is no terminal."""
        if not self.watched:
            self.note("dressform: no picture is shown: stderr is no terminal")
            return
        from dressform.commands.drawing import Canvas

        styled = self.styled(stderr=True)
        styled.print(Canvas(styled).picture(pictures))

    def failed(self, error: DressformError | OSError | str, code: int | None = None) -> int:
        """One sentence on what went wrong; returns the exit code, ``code`` or the error's own."""
        document: dict[str, Any] = {"type": "Error", "message": str(error)}
        if isinstance(error, DressformError):
            code = code_of(error) if code is None else code
            document = described(error)
        code = FAILED if code is None else code
        self.note(f"dressform: {document['message']}")
        self.answer({"error": document | {"exit_code": code}})
        return code


def harmless(text: str) -> str:
    """``text`` without what a terminal would take as a command: names and answers may come from strangers."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def described(error: Exception) -> dict[str, Any]:
    """An error as JSON."""
    document: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, DressformError):
        document |= {"code": error.code, "request_id": error.request_id}
    if isinstance(error, Overloaded):
        document["retry_after"] = error.retry_after
    return document
