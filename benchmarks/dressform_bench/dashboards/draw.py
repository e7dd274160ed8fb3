"""Panels drawn as Grafana lays them out, from what Prometheus answers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from dressform_bench.dashboards.board import Board, Panel
from dressform_bench.dashboards.prometheus import Series

RED, BLUE = "#d62728", "#1f77b4"
COLUMN_INCHES, LINE_INCHES, TITLE_INCHES = 0.72, 0.36, 0.5
MARGIN = (0.75, 0.62, 0.2, 0.3)
"""Inches of a panel that its axes leave free: left, below, right, above."""

PREFIXED: Mapping[str, str] = {"s": "s", "bytes": "B", "watt": "W"}
"""Grafana's units that take a prefix (ms, GB); the others are shares, rates and numbers."""

WINDOW = "15s"
"""What rates are taken over."""

LEGENDS = 12
"""Lines that are named, the highest."""


@dataclass(frozen=True)
class Drawn:
    """A panel's data: its lines by legend, in order."""

    panel: Panel
    lines: Sequence[tuple[str, Series]]


def legend(template: str, series: Series) -> str:
    """Grafana's legend: ``{{label}}`` replaced, by nothing where the series has none."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), template).strip()


def quantity(value: float, unit: str) -> str:
    """A value in Grafana's ``unit``, in at most three digits."""
    if unit in PREFIXED:
        return EngFormatter(PREFIXED[unit]).format_data(float(f"{value:.3g}"))
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    return f"{value:.3g}" + ("/s" if unit in {"reqps", "ops"} else "")


@dataclass(frozen=True)
class Span:
    """What the panels show: from ``start`` to ``end`` (unix seconds), with vertical lines at ``marks`` by name."""

    start: float
    end: float
    marks: Mapping[str, Sequence[float]]


def board(one: Board, panels: Sequence[Drawn], span: Span, path: Path) -> None:
    """Write the dashboard as a PNG."""
    lines = max(panel.grid[1] + panel.grid[3] for panel in one.panels)
    width, height = 24 * COLUMN_INCHES, lines * LINE_INCHES + TITLE_INCHES
    with matplotlib.rc_context({"font.size": 8, "axes.titlesize": 9, "axes.titleweight": "bold"}):
        figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
        figure.text(0.12 / width, 1 - 0.32 / height, one.title, fontsize=14, fontweight="bold")
        for top, heading in one.headings.items():
            y = height - TITLE_INCHES - (top + 0.75) * LINE_INCHES
            figure.text(0.12 / width, y / height, heading, fontsize=10.5, color="#555555")
        for drawn in panels:
            _panel(figure, drawn, span, (width, height))
        figure.savefig(path)


def _panel(figure: Figure, drawn: Drawn, span: Span, size: tuple[float, float]) -> None:
    x, y, w, h = drawn.panel.grid
    left, below, right, above = MARGIN
    width, height = size
    bottom = height - TITLE_INCHES - (y + h) * LINE_INCHES
    stat = drawn.panel.kind == "stat"
    box = (
        x * COLUMN_INCHES + (0.1 if stat else left),
        bottom + (0.1 if stat else below),
        w * COLUMN_INCHES - (0.2 if stat else left + right),
        h * LINE_INCHES - above - (0.1 if stat else below),
    )
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.set_title(drawn.panel.title, loc="left", y=1)
    if not drawn.lines:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="#aa0000")
        axes.set_axis_off()
    elif stat:
        _stat(axes, drawn)
    else:
        (_heatmap if drawn.panel.kind == "heatmap" else _lines)(axes, drawn)
        for name, moments in span.marks.items():
            for moment in moments:
                axes.axvline(moment, color=RED if name == "Alerts" else BLUE, linestyle=":", linewidth=1.2)
        axes.set_xlim(span.start, span.end)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 3, 6, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: time.strftime("%H:%M:%S", time.localtime(value))))


def _lines(axes: Axes, drawn: Drawn) -> None:
    panel = drawn.panel
    colours = pyplot.get_cmap("tab20" if len(drawn.lines) > 10 else "tab10").colors  # type: ignore[attr-defined]
    if panel.stacked:
        times = sorted({moment for _, series in drawn.lines for moment in series.times})
        heights = [dict(zip(series.times, series.values)) for _, series in drawn.lines]
        layers = [[height.get(moment, 0.0) for moment in times] for height in heights]
        names = [name for name, _ in drawn.lines]
        axes.stackplot(times, layers, labels=names, colors=colours, alpha=0.75)
    else:
        for i, (name, series) in enumerate(drawn.lines):
            axes.plot(*_with_gaps(series), label=name, color=colours[i % len(colours)], linewidth=1.2)
    axes.set_ylim(bottom=0)
    if panel.limit is not None and panel.limit < 4 * axes.get_ylim()[1]:
        axes.axhline(panel.limit, color=RED, linestyle="--", linewidth=1)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, panel.unit)))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, drawn)


def _with_gaps(series: Series) -> tuple[list[float], list[float]]:
    """Times and values, with a value that is no number where points are missing: the line breaks there."""
    times, values = [series.times[0]], [series.values[0]]
    least = min((b - a for a, b in pairwise(series.times)), default=0.0)
    for (before, now), value in zip(pairwise(series.times), series.values[1:]):
        if now - before > 1.5 * least:
            times.append(before + least)
            values.append(math.nan)
        times.append(now)
        values.append(value)
    return times, values


def _legend(axes: Axes, drawn: Drawn) -> None:
    highest = sorted(drawn.lines, key=lambda line: -max(line[1].values))[:LEGENDS]
    named = {name for name, _ in highest}
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels()) if label in named}
    axes.legend(
        list(handles.values()),
        list(handles),
        loc="upper left",
        bbox_to_anchor=(-0.1, -0.12),
        ncols=max(1, min(len(handles), drawn.panel.grid[2] // 2, 5)),
        frameon=False,
        fontsize=6.5,
        handlelength=1,
        columnspacing=0.8,
        labelspacing=0.2,
    )


def _heatmap(axes: Axes, drawn: Drawn) -> None:
    """Cumulative buckets (label ``le``) as counts of each bucket over time."""
    lines = sorted(((float(series.labels["le"]), series) for _, series in drawn.lines), key=lambda line: line[0])
    times = sorted({moment for _, series in lines for moment in series.times})
    total = np.array([[dict(zip(series.times, series.values)).get(t, 0.0) for t in times] for _, series in lines])
    counts = np.diff(total, axis=0, prepend=0).clip(0)
    seen = int(np.flatnonzero(counts.any(axis=1)).max(initial=0)) + 1
    bounds = ["more" if math.isinf(bound) else f"≤ {bound:.0f}" for bound, _ in lines[:seen]]
    shown = np.where(counts > 0, counts, np.nan)[:seen]
    mesh = axes.pcolormesh(np.array(times), np.arange(len(bounds)), shown, cmap="Oranges", shading="nearest")
    axes.set_yticks(range(len(bounds)), bounds)
    axes.figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03, label=f"calls in {WINDOW}")


def _stat(axes: Axes, drawn: Drawn) -> None:
    _, series = drawn.lines[0]
    value, limit = series.values[-1], drawn.panel.limit
    good = limit is None or (value >= limit if limit < 1 else value < limit)
    colour = "#2b7a2b" if good else "#c0392b"
    text = quantity(value, drawn.panel.unit)
    axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", va="center", fontsize=18, color=colour)
    axes.fill_between(series.times, series.values, alpha=0.15)
    axes.set_ylim(0, 3.5 * max(*series.values, 1e-9))
    axes.set_axis_off()
