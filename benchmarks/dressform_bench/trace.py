"""A picture of continuous batching: ``python -m dressform_bench.trace INFOS.jsonl OUT.png``.

Each line of the file is a JSON object with the ``info`` of an answered request (``dressform_bench.openloop --infos``
writes such files; any client can). Several files become panels, one above the other, on one time and colour scale.

What is seen: a row is a job, in order of arrival. A coloured cell is a denoising step of it, as wide as the UNet call
took, its colour the number of jobs in that call. The thin grey line is the rest of its time in the server: waiting,
encoding, decoding. The window is the busiest ``--seconds`` of the file, or all of it if that is shorter.
"""

from __future__ import annotations

import argparse
import bisect
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dressform_bench.goodput import SAME_CALL_MS

COLOURS = "viridis_r"
AXIS_POINTS = 760
"""Length of the time axis, about, in points (1/72 inch)."""


@dataclass(frozen=True)
class Cell:
    """A step: start and end in ms, and the jobs in its UNet call."""

    start: float
    end: float
    batch: int


@dataclass(frozen=True)
class Row:
    """A job: arrival and answer in ms of the server's clock, and its steps."""

    arrived: float
    answered: float
    cells: tuple[Cell, ...]


def rows(infos: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The jobs in order of arrival.

    A UNet call begins when the job is ready and the call before has ended: one runs at a time.

    Raises:
        ValueError: if an info has not one batch size for each step.
    """
    for info in infos:
        if len(info["step_ends_ms"]) != len(info["batch_sizes"]):
            steps, sizes = len(info["step_ends_ms"]), len(info["batch_sizes"])
            raise ValueError(f"an info needs a batch size for each step, but has {sizes} for {steps} steps")
    calls = sorted(info["arrived_ns"] / 1e6 + end for info in infos for end in info["step_ends_ms"])
    return sorted((_row(info, calls) for info in infos), key=lambda row: row.arrived)


def _row(info: Mapping[str, Any], calls: Sequence[float]) -> Row:
    arrived, parts = info["arrived_ns"] / 1e6, info["milliseconds"]
    ready = arrived + parts["preprocess"] + parts["encode"] + parts["wait"]
    cells = []
    for end, batch in zip((arrived + end for end in info["step_ends_ms"]), info["batch_sizes"]):
        before = bisect.bisect_left(calls, end - SAME_CALL_MS) - 1
        ready = min(end, max(ready, calls[before] if before >= 0 else ready))
        cells.append(Cell(ready, end, batch))
        ready = end
    return Row(arrived, arrived + parts["total"], tuple(cells))


def interrupted(found: Sequence[Row]) -> int:
    """Jobs that missed a UNet call between two steps of their own: none where a batch runs to its end."""
    return sum(any(b.start - a.end > SAME_CALL_MS for a, b in pairwise(row.cells)) for row in found)


def busiest(found: Sequence[Row], milliseconds: float) -> tuple[float, float]:
    """Start and end (ms) of the window of that length, at most, in which most steps end; it begins with an arrival."""
    if not found:
        raise ValueError("the file has no infos")
    ends = sorted(cell.end for row in found for cell in row.cells)

    def steps(row: Row) -> int:
        return bisect.bisect_right(ends, row.arrived + milliseconds) - bisect.bisect_left(ends, row.arrived)

    start = max(found, key=steps).arrived
    return start, min(start + milliseconds, max(row.answered for row in found))


def main(argv: Sequence[str] | None = None) -> None:
    """Read, choose the window, draw."""
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.trace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("infos", type=Path, nargs="+", metavar="INFOS.jsonl")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--seconds", type=float, default=60, help="of the picture, at most (60)")
    parser.add_argument("--load", type=float, help="only the lines with this load, as openloop writes it")
    parser.add_argument("--repeat", type=int, help="only the lines with this repeat, as openloop writes it")
    parser.add_argument("--titles", nargs="+", help="of the panels; default the files' names")
    options = parser.parse_args(argv)
    panels = [rows(read(path, options.load, options.repeat)) for path in options.infos]
    titles = options.titles or [path.stem for path in options.infos]
    if len(titles) != len(panels):
        parser.error(f"{len(panels)} files need as many titles, not {len(titles)}")
    draw(dict(zip(titles, panels)), options.seconds, options.out)


def read(path: Path, load: float | None = None, repeat: int | None = None) -> list[dict[str, Any]]:
    """The infos in the lines of a file."""
    wanted = {name: value for name, value in (("load", load), ("repeat", repeat)) if value is not None}
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [line["info"] for line in lines if all(line.get(name) == value for name, value in wanted.items())]


def draw(panels: Mapping[str, Sequence[Row]], seconds: float, out: Path) -> None:
    """One panel for each title, all on the first one's time and colour scale, to a PNG."""
    windows = {name: busiest(found, 1000 * seconds) for name, found in panels.items()}
    shown = {
        name: [row for row in found if row.answered > windows[name][0] and row.arrived < windows[name][1]]
        for name, found in panels.items()
    }
    top = max(cell.batch for found in shown.values() for row in found for cell in row.cells)
    longest = max(end - start for start, end in windows.values()) / 1000
    heights = [min(max(0.085 * len(found), 2.5), 9) for found in shown.values()]
    figure, grid = pyplot.subplots(
        len(panels),
        1,
        figsize=(12, 1.2 + sum(heights)),
        dpi=150,
        squeeze=False,
        sharex=True,
        layout="constrained",
        height_ratios=heights,
    )
    for axes, (name, found) in zip(grid[:, 0], shown.items()):
        cells = _panel(axes, found, windows[name][0], Normalize(1, max(top, 2)), longest)
        axes.set(xlim=(0, longest), ylim=(len(found), -1), ylabel="job, in order of arrival")
        axes.set_title(name, loc="left", fontweight="bold")
    grid[-1, 0].set_xlabel("time (s)")
    line = Line2D([], [], color="0.6", linewidth=1, label="in the server, not in a UNet call (waits, encodes, decodes)")
    step = Patch(color=pyplot.get_cmap(COLOURS)(0.5), label="a denoising step, coloured by the jobs in its UNet call")
    figure.legend(handles=[step, line], loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    bar = figure.colorbar(cells, ax=grid[:, 0].tolist(), fraction=0.03, pad=0.01, ticks=MaxNLocator(integer=True))
    bar.set_label("jobs in the UNet call")
    figure.savefig(out)
    pyplot.close(figure)


def _panel(axes: Axes, found: Sequence[Row], start: float, scale: Normalize, seconds: float) -> PolyCollection:
    """Rows and cells, in seconds since ``start`` (ms); the axis is ``seconds`` long."""
    lines = [[((row.arrived - start) / 1e3, k), ((row.answered - start) / 1e3, k)] for k, row in enumerate(found)]
    axes.add_collection(LineCollection(lines, colors="0.6", linewidths=0.8, zorder=1))
    boxes = [
        [(x, k + y) for x, y in zip(_corners(cell, start), (-0.42, 0.42, 0.42, -0.42))]
        for k, row in enumerate(found)
        for cell in row.cells
    ]
    width = (
        statistics.median(cell.end - cell.start for row in found for cell in row.cells) / 1e3 / seconds * AXIS_POINTS
    )
    edge = min(0.4, 0.12 * width)  # a line that narrow cells are not lost under
    cells = PolyCollection(boxes, cmap=COLOURS, norm=scale, edgecolors="white", linewidths=edge, zorder=2)
    cells.set_array([cell.batch for row in found for cell in row.cells])
    axes.add_collection(cells)
    axes.spines[["top", "right"]].set_visible(False)
    return cells


def _corners(cell: Cell, start: float) -> tuple[float, float, float, float]:
    left, right = (cell.start - start) / 1e3, (cell.end - start) / 1e3
    return left, left, right, right


if __name__ == "__main__":
    main()
