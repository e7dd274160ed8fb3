"""What the terminal can show, by asking it: variables such as TERM_PROGRAM are handed on to what runs within another.

Queries: kitty's graphics protocol ("Querying support"), XTVERSION (xterm's control sequences) by which iTerm2 names
itself, the size of a cell (XTWINOPS 16), and primary device attributes (DA1), where 4 stands for sixels. Every terminal
answers the last one, so its answer ends the wait.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
import time
import tty
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["kitty", "iterm2", "sixel", "blocks"]

_QUERIES = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[>q\x1b[16t\x1b[c"
_ATTRIBUTES = re.compile(r"\x1b\[\?([\d;]*)c")
_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Terminal:
    """How pictures are drawn (blocks: in text), and the width and height of a cell in pixels."""

    protocol: Protocol = "blocks"
    cell: tuple[int, int] = (8, 16)

    @classmethod
    def of(cls, answers: str, cell: tuple[int, int] = (8, 16)) -> Terminal:
        """The terminal that gives these answers; ``cell`` if it does not say."""
        attributes, size = _ATTRIBUTES.search(answers), re.search(r"\x1b\[6;([1-9]\d*);([1-9]\d*)t", answers)
        protocol: Protocol = "blocks"
        if "\x1bP>|iTerm2" in answers:
            protocol = "iterm2"
        elif "\x1b_Gi=31;OK" in answers:
            protocol = "kitty"
        elif attributes is not None and "4" in attributes[1].split(";"):
            protocol = "sixel"
        return cls(protocol, cell if size is None else (int(size[2]), int(size[1])))

    @classmethod
    def asked(cls) -> Terminal:
        """The terminal that this process is in the foreground of."""
        # The Linux console prints queries that it does not know.
        if os.environ.get("TERM", "dumb") in ("dumb", "linux"):
            return cls()
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        except OSError:
            return cls()
        try:
            # In the background, a process that touches the terminal is stopped.
            if os.tcgetpgrp(terminal) != os.getpgrp():
                return cls()
            return cls.of(_answers(terminal), _cell(terminal) or cls.cell)
        finally:
            os.close(terminal)


def _cell(terminal: int) -> tuple[int, int] | None:
    """The cell by the window's size, where the kernel knows it in pixels."""
    size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
    rows, columns, width, height = struct.unpack("HHHH", size)
    return (width // columns, height // rows) if rows and columns and width and height else None


def _answers(terminal: int) -> str:
    before = termios.tcgetattr(terminal)
    answers, end = "", time.monotonic() + _PATIENCE_SECONDS
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        os.write(terminal, _QUERIES)
        while not _ATTRIBUTES.search(answers) and (left := end - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0]:
                answers += os.read(terminal, 1024).decode("latin-1")
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
    return answers
