"""A terminal for tests: the other end of a pseudo-terminal, which answers the queries of the program in it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROWS, COLUMNS = 40, 100

ANSWERS = {
    "kitty": b"\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.26.5)\x1b\\\x1b[6;20;10t\x1b[?62;c",
    "iterm2": b"\x1bP>|iTerm2 3.5.10\x1b\\\x1b[6;20;10t\x1b[?62;4c",
    "sixel": b"\x1bP>|XTerm(379)\x1b\\\x1b[?63;1;2;4;6;9;15;22c",
    "blocks": b"\x1bP>|tmux 3.3a\x1b\\\x1b[?1;2c",
}
"""What terminals answer: kitty 0.26, iTerm2 3.5, xterm 379 as a VT340, tmux 3.3."""


@dataclass
class Seen:
    """What a program wrote on its terminal, and its exit status."""

    text: str
    code: int


def run(
    script: str,
    *words: str,
    answers: bytes = b"",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    interrupt_at: str = "",
    pixels: tuple[int, int] = (0, 0),
) -> Seen:
    """Runs a Python script in a terminal of ``ROWS`` × ``COLUMNS`` until it ends.

    Args:
        answers: sent when it asks for the terminal's attributes; nothing leaves it without.
        interrupt_at: Ctrl-C is typed when this has been written.
        pixels: the window's width and height, as the kernel tells them; 0: it does not know.
    """
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, *pixels))
        if folder is not None:
            os.chdir(folder)
        paths = os.pathsep.join(path for path in sys.path if path)
        base = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.execve(sys.executable, [sys.executable, "-c", script, *words], {**base, **(environment or {})})
    seen, answered, interrupted = b"", False, False
    end = time.monotonic() + 120
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(terminal, 65536)
            except OSError:  # the program has ended
                break
            if not data:
                break
            seen += data
            if answers and not answered and b"\x1b[c" in seen:
                answered = os.write(terminal, answers) > 0
            if interrupt_at and not interrupted and interrupt_at.encode() in seen:
                interrupted = os.write(terminal, b"\x03") > 0
        else:
            os.kill(child, signal.SIGKILL)
    finally:
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    return Seen(seen.decode(errors="replace"), os.waitstatus_to_exitcode(status))
