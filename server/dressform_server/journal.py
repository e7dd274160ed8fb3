"""Triton's log: where its lines go, which models it has loaded, and why it ended."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from dressform_server.lines import OURS, TRITON_LINE, TRITONS, Shape, as_it_comes

Echo = Callable[[str], None]

_LOADED = re.compile(r"successfully loaded '([^']+)'")
_FAILED = re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<status>[^:]+): (?P<reason>.*)", re.DOTALL)
_PORT_LOST = re.compile(r"already in use|Only one usage of each socket address")
_HARMLESS = re.compile(r"CudaDriverHelper has not been initialized")
"""Logged as an error on every machine without a GPU."""
_OURS = "TritonModelException: "
"""Begins the sentence of a stage or backend that refused to load; other exceptions are shown with their place."""
_KEPT_LINES = 400


class Journal:
    """Follows the lines of one Triton in a thread of its own.

    Every line goes to ``file`` if there is one; ``echo`` gets warnings and errors, or every line if ``verbose``; either
    as ``shape`` has it.
    Errors while models load are held back until `release`: if Triton ends instead, `reason` tells them better.
    """

    def __init__(self, file: Path | None, echo: Echo | None, verbose: bool, shape: Shape = as_it_comes) -> None:
        """A journal that follows nothing yet."""
        self._file = file
        self._file_fails = False
        self._echo = echo
        self._verbose = verbose
        self._shape = shape
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._loaded: set[str] = set()
        self._held: list[str] | None = []
        self._thread: threading.Thread | None = None

    @property
    def loaded(self) -> int:
        """How many models Triton has loaded."""
        return len(self._loaded)

    def follow(self, stream: IO[str]) -> None:
        """Read ``stream`` until it ends, in a thread."""
        self._thread = threading.Thread(target=self._read, args=(stream,), name="triton-log", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Echo the errors held back while models loaded, and from now on every one as it comes."""
        held, self._held = self._held or [], None
        for line in held:
            self._show(line)

    def finish(self, timeout: float = 5.0) -> None:
        """Wait until the stream ended, at most ``timeout`` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def reason(self) -> str:
        """Why Triton ended, as far as its log tells."""
        return reason_in(self._lines)

    @property
    def port_lost(self) -> bool:
        """Whether Triton ended because another program took a port first."""
        return any(_PORT_LOST.search(line) for line in self._lines)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for ended_line in stream:
                line = ended_line.rstrip("\n")
                self._take(line)
                self._write(line)

    def _write(self, line: str) -> None:
        """Append to the file. Opened for each line, so that the file may be moved away at any time."""
        if self._file is None:
            return
        try:
            with self._file.open("ab", buffering=0) as out:
                out.write((self._shape(line, TRITONS) + "\n").encode())
            self._file_fails = False
        except OSError as error:  # the disk is full, say: Triton's output is read on, or it would stand still
            if not self._file_fails and self._echo is not None:
                self._echo(self._shape(f"the log cannot be written: {error}", OURS))
            self._file_fails = True

    def _take(self, line: str) -> None:
        self._lines.append(line)
        if loaded := _LOADED.search(line):
            self._loaded.add(loaded[1])
        if self._verbose:
            self._show(line)
        elif is_notable(line):
            if self._held is not None and line.startswith("E"):
                self._held.append(line)
            else:
                self._show(line)

    def _show(self, line: str) -> None:
        if self._echo is not None:
            self._echo(self._shape(line, TRITONS))


def is_notable(line: str) -> bool:
    """Whether a person should see ``line`` though they did not ask for the log: a warning or an error."""
    match = TRITON_LINE.match(line)
    return match is not None and match["level"] != "I" and not _HARMLESS.search(line)


def reason_in(lines: Iterable[str]) -> str:
    """The sentences in Triton's log that say why it ended: each failed model with its reason, else its last errors."""
    lines = list(lines)
    failed = _failures(lines)
    if failed:
        return "\n".join(f"model {model}: {reason}" for model, reason in failed.items())
    matches = [match for line in lines if is_notable(line) and (match := TRITON_LINE.match(line))]
    errors = [match["text"] for match in matches if match["level"] in "EF"]
    errors += [line for line in lines if line.startswith("error:")]
    return "\n".join(errors[-5:] or lines[-15:]) or "its log is empty"


def _failures(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        if match := _FAILED.search(line):
            reason, _, trace = match["reason"].removesuffix('"').replace("\\n", "\n").partition("\n\nAt:\n")
            sentence = reason.strip()
            if sentence.startswith(_OURS):
                sentence = sentence.removeprefix(_OURS)
            elif trace:
                sentence += f" (at {trace.strip().splitlines()[0]})"
            found.setdefault(match["model"], sentence)
    return found
