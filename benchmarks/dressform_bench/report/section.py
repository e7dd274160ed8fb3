"""What a report is made of: a section for each run, with its finding, charts and tables. Nothing here is HTML yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import FigureBase


class Code(str):
    """Text that is shown as code."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Cells of text by rows; the first column says what a row is about. ``name`` is how documents ask for it."""

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A picture whose ``title`` is its finding, as a sentence.

    ``draw`` paints it into a figure, for a phone where its second argument is true; ``wide`` and ``narrow`` are its
    sizes (inches, width and height) for a desktop and a phone. ``alt`` says what is drawn.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[FigureBase, bool], None]
    wide: tuple[float, float]
    narrow: tuple[float, float]


@dataclass(frozen=True)
class Section:
    """A run: what it was, what it found (a sentence), what its words mean, and its charts and tables."""

    heading: str
    finding: str
    notes: tuple[str, ...]
    parts: tuple[Chart | Table, ...]

    @property
    def tables(self) -> Mapping[str, Table]:
        """By name."""
        return {part.name: part for part in self.parts if isinstance(part, Table)}


Column = tuple[str, str, Callable[[Any], str]]
"""A head, the key in a row of a record, and how its value is written."""


def columns(name: str, caption: str, wanted: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of the ``rows`` of a record; columns that no row has a value for are left out."""
    rows = list(rows)
    used = [column for column in wanted if any(row.get(column[1]) is not None for row in rows)]
    cells = tuple(tuple("–" if row.get(key) is None else as_text(row[key]) for _, key, as_text in used) for row in rows)
    return Table(name, caption, tuple(head for head, _, _ in used), cells)


def short(value: float | None, digits: int = 3) -> str:
    """A number with so many digits that count, and no fewer than stand before the point; – for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def seconds(value: float | None) -> str:
    """A time with its unit: ms below a second, minutes from two on."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.9995:
        return f"{short(1000 * value)} ms"
    return f"{short(value)} s" if abs(value) < 600 else f"{short(value / 60)} min"


def percent(share: float | None) -> str:
    """A share in percent; 100 % and 0 % are all and none."""
    if share is None:
        return "–"
    value = 100 * share
    close = 0 < value < 1 or 99 < value < 100
    return f"{min(max(value, 0.1), 99.9):.1f} %" if close else f"{value:.0f} %"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def counted(count: int, one: str, many: str = "") -> str:
    """``1 user``, ``8 users``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
