"""What the benchmarks take on their command lines, and how they end where it is of no use."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from dressform import DressformError
from dressform_export.errors import ExportError
from dressform_server import ServerError

INTERRUPTED = 130
"""The exit code after Ctrl-C (128 + SIGINT), as shells have it. What was measured until then is in the record."""


class Unusable(Exception):
    """What was asked for cannot be measured; the message is one sentence that says why."""


def guarded(main: Callable[[], int]) -> int:
    """The exit code of ``main``; with a sentence 2 where an argument, an export, a server or a file is at fault, and
    130 at Ctrl-C.
    """
    try:
        return main()
    except (Unusable, ExportError, ServerError, DressformError, OSError) as error:
        print(f"dressform bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dressform bench: interrupted, with nothing measured yet", file=sys.stderr)
        return INTERRUPTED


def tell_interrupted() -> None:
    """Say what becomes of a run that Ctrl-C cut short after something was measured."""
    print("interrupted: the record holds what was measured until now", file=sys.stderr, flush=True)


def count(text: str) -> int:
    """A number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1, not {text!r}")
    return int(text)


def positive(text: str) -> float:
    """A number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def seconds(text: str) -> float:
    """A number from 0 on."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def share(text: str) -> float:
    """A number above 0, up to 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return value


def pixels(text: str) -> tuple[int, int]:
    """Width and height, as in ``96x128``; one number is both."""
    sides = text.split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT or the side of a square, not {text!r}")
    return int(sides[0]), int(sides[-1])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
