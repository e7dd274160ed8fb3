"""What a dashboard is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "heatmap", "stat"]


@dataclass(frozen=True)
class Panel:
    """A panel: what it answers, its unit (Grafana's name), its queries by legend, and how it is drawn.

    ``width`` is in columns of 24, ``limit`` a value worth a line (the service level's, say).
    """

    title: str
    about: str
    unit: str
    queries: dict[str, str]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    limit: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a heading, from left to right; a ``collapsed`` one is opened by whoever needs it."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Dashboard:
    """A page of rows, with its variables: the label's name by the metric that has it."""

    name: str
    title: str
    about: str
    variables: dict[str, str]
    rows: tuple[Row, ...]
