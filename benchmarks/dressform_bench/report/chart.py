"""Charts as SVG for a page, in two widths, and as PNG for a document; all in one look, for colour-blind eyes too."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from dressform_bench.report.section import Chart

BLUE, ORANGE, GREEN, SKY, PURPLE, GREY, INK = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#56b4e9",
    "#aa4499",
    "#8c8c8c",
    "#222222",
)
"""Colours that differ to all kinds of eyes (after Okabe & Ito 2008)."""

DPI = 150

SOURCE = "Source"
"""Where a PNG says what it was drawn from (a keyword of the PNG standard, 11.3.3)."""

_LOOK: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.alpha": 0.25,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "text.color": INK,
    "xtick.color": "#444444",
    "xtick.labelsize": 9,
    "ytick.color": "#444444",
    "ytick.labelsize": 9,
}


def svg(chart: Chart, narrow: bool, salt: str) -> str:
    """The chart without its title as an ``svg`` element; ``salt`` makes the ids in it differ from other charts'."""
    name = f"{salt}-{'narrow' if narrow else 'wide'}"
    with matplotlib.rc_context({**_LOOK, "svg.hashsalt": name}):
        figure = Figure(figsize=chart.narrow if narrow else chart.wide, layout="constrained")
        chart.draw(figure, narrow)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text[text.index("<svg") :].strip())


def png(chart: Chart, path: Path, caption: str, source: str) -> None:
    """Write the chart with its title above and ``caption`` below; ``source`` stays in the file, unseen."""
    width, height = chart.wide
    title = textwrap.fill(chart.title, int(width * 9.5))
    heights = (0.26 * (1 + title.count("\n")) + 0.12, height, 0.3)
    with matplotlib.rc_context(_LOOK):
        whole = Figure(figsize=(width, sum(heights)), layout="constrained", dpi=DPI)
        parts: Any = whole.subfigures(3, 1, height_ratios=heights)
        above, middle, below = parts
        above.text(0.008, 0.5, title, fontsize=13, fontweight="bold", va="center")
        chart.draw(middle, False)
        below.text(0.008, 0.5, caption, fontsize=8, color="#555555", va="center")
        whole.savefig(path, metadata={SOURCE: source})


def panels(figure: FigureBase, rows: int, columns: int, **options: Any) -> list[list[Axes]]:
    """Axes by row and column."""
    grid: list[list[Axes]] = figure.subplots(rows, columns, squeeze=False, **options).tolist()
    return grid


def in_a_row(figure: FigureBase, count: int, narrow: bool, **options: Any) -> Sequence[Axes]:
    """Axes beside one another, or below one another where it is ``narrow``."""
    grid = panels(figure, count, 1, **options) if narrow else panels(figure, 1, count, **options)
    return [axes for row in grid for axes in row]
