"""``load``: what a closed loop of users got, over time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from dressform_bench.report.chart import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, panels
from dressform_bench.report.section import (
    Chart,
    Code,
    Column,
    Section,
    Table,
    columns,
    counted,
    percent,
    seconds,
    short,
)

Sample = Mapping[str, Any]

_SUMMARY: Sequence[Column] = (
    ("requests", "requests", "{:,}".format),
    ("failed", "failures", "{:,}".format),
    ("requests a second", "requests_per_second", short),
    ("p50, s", "p50_seconds", short),
    ("p95, s", "p95_seconds", short),
    ("p99, s", "p99_seconds", short),
    ("waiting, ms", "waiting_ms", short),
    ("jobs in a UNet call", "batch", short),
)
_KINDS: Sequence[Column] = (
    ("kind of request", "name", str),
    ("protocol", "protocol", str),
    ("requests", "requests", "{:,}".format),
    ("failed", "failures", "{:,}".format),
    ("p50, s", "p50_seconds", short),
    ("p95, s", "p95_seconds", short),
)
_MEMORY: Sequence[Column] = (
    ("process", "name", str),
    ("GB at the end", "held", short),
    ("MB a minute in the second half", "growth", "{:+.2f}".format),
)
_ERRORS: Sequence[Column] = (
    ("error", "error", Code),
    ("kind of request", "name", str),
    ("protocol", "protocol", str),
    ("times", "count", str),
)
_PANELS: Sequence[tuple[str, str, Sequence[tuple[str, str, str, str]]]] = (
    ("Throughput", "requests / s", (("requests_per_second", "", BLUE, "-"),)),
    (
        "Time to a picture",
        "s",
        (("p50_seconds", "p50", BLUE, "-"), ("p95_seconds", "p95", ORANGE, "--")),
    ),
    ("Wait for the first step", "ms", (("waiting_ms", "", PURPLE, "-"),)),
    ("Jobs in a UNet call", "jobs", (("batch", "", GREEN, "-"),)),
    ("Memory of the server", "GB", (("memory_gigabytes", "", INK, "-"),)),
    ("Users", "users", (("users", "", GREY, "-"),)),
)
"""Title and unit of a panel, and its lines: key, label, colour and style."""


def section(record: Mapping[str, Any]) -> Section:
    """The section of a run."""
    series = record["series"]
    parts: list[Chart | Table] = []
    used = [panel for panel in _PANELS if any(_has(series, key) for key, *_ in panel[2])]
    if len(series) > 1 and used:
        rows = -(-len(used) // 3)
        parts.append(
            Chart(
                "load",
                finding(record),
                f"Over time: {', '.join(title.lower() for title, _, _ in used)}.",
                lambda figure, narrow: _draw(figure, narrow, series, used),
                (10.5, 0.3 + 2.1 * rows),
                (4.3, 0.3 + 1.75 * len(used)),
            )
        )
    parts.append(columns("summary", "The whole run", _SUMMARY, [record["summary"]]))
    if record.get("by_name"):
        parts.append(columns("kinds", "By kind of request", _KINDS, record["by_name"]))
    grown = growth(series)
    if grown:
        parts.append(columns("memory", "Memory of the server's processes, the fastest grower first", _MEMORY, grown))
    if record.get("errors"):
        parts.append(columns("errors", "What failed", _ERRORS, record["errors"]))
    engine = record["settings"].get("engine")
    heading = f"Load: {', '.join([record['model'] or 'a model', *([engine] if engine else []), _crowd(record)])}"
    note = "A closed loop: each user waits for the picture, thinks, and asks again. Times are the client's own."
    return Section(heading, finding(record), (note,), tuple(parts))


def finding(record: Mapping[str, Any]) -> str:
    """Whether requests failed, how fast they were, and what the memory did."""
    total = record["summary"]
    failed, asked = total["failures"], total["requests"]
    fate = "none failed" if not failed else f"{failed:,} failed ({percent(failed / asked) if asked else 'all'})"
    words = [f"{_crowd(record)}: {counted(asked, 'request')}, {fate}"]
    if total.get("p95_seconds") is not None:
        words.append(f"p95 {seconds(total['p95_seconds'])}")
    grown = growth(record["series"])
    if grown:
        words.append(_told(grown))
    return "; ".join(words)


def _told(grown: Sequence[Mapping[str, Any]]) -> str:
    """The memory in words, and which process of several grew most."""
    whole, (name, most) = grown[-1], (grown[0]["name"], grown[0]["growth"])
    sign = "+" if whole["growth"] >= 0 else "−"
    told = f"memory {whole['held']:.2f} GB, {sign}{abs(whole['growth']):.1f} MB a minute in the second half"
    return f"{told} (fastest: {name}, +{most:.1f})" if len(grown) > 1 and most >= 0.05 else told


def growth(series: Sequence[Sample]) -> list[Mapping[str, Any]]:
    """What each process held at the end (GB), and how it grew in the second half of the time with all users there:
    MB a minute, the slope of a line by least squares. The fastest grower comes first, the sum of all last.
    """
    most = max((sample.get("users") or 0 for sample in series), default=0)
    full = [sample for sample in series if (sample.get("users") or 0) == most and sample.get("memory_by_process")]
    half = [sample for sample in full if sample["t"] >= (full[0]["t"] + full[-1]["t"]) / 2]
    if len(half) < 2:
        return []
    minutes = [sample["t"] / 60 for sample in half]

    def grown(name: str, held: Sequence[float]) -> dict[str, Any]:
        return {"name": name, "held": held[-1], "growth": 1000 * statistics.linear_regression(minutes, held).slope}

    names = {name: None for sample in half for name in sample["memory_by_process"]}
    each = [grown(name, [sample["memory_by_process"].get(name, 0.0) for sample in half]) for name in names]
    whole = grown("all", [sample["memory_gigabytes"] for sample in half])
    return [*sorted(each, key=lambda row: -float(row["growth"])), whole]


def _crowd(record: Mapping[str, Any]) -> str:
    series = record["series"]
    users = max((sample.get("users") or 0 for sample in series), default=0)
    span = max((sample["t"] for sample in series), default=0)
    # Sampling ends a moment after the last whole minute.
    told = counted(round(span / 60), "minute") if span >= 90 else counted(round(span), "second")
    return f"{counted(users, 'user')} for {told}" if users else f"users for {told}"


def _has(series: Sequence[Sample], key: str) -> bool:
    return any(sample.get(key) is not None for sample in series)


def _draw(figure: FigureBase, narrow: bool, series: Sequence[Sample], used: Sequence[Any]) -> None:
    minutes = max(sample["t"] for sample in series) >= 120
    at = [sample["t"] / (60 if minutes else 1) for sample in series]
    across = 1 if narrow else 3
    grid = panels(figure, -(-len(used) // across), across, sharex=True)
    flat = [axes for row in grid for axes in row]
    for axes, (title, unit, lines) in zip(flat, used):
        for key, label, colour, style in lines:
            if _has(series, key):
                values = [float("nan") if sample.get(key) is None else sample[key] for sample in series]
                axes.plot(at, values, style, color=colour, label=label, linewidth=1.5)
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_ylim(0, 1.25 * (axes.get_ylim()[1] or 1))
        if len(lines) > 1:
            axes.legend(loc="upper right", ncols=3, fontsize=8, handlelength=1.6, columnspacing=0.9, borderaxespad=0)
    _mark_failures(flat[0], at, series)
    for axes in flat[len(used) :]:
        axes.set_visible(False)
    bottom = flat[len(used) - across : len(used)]
    for axes in bottom:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set(xlabel="minutes" if minutes else "seconds", xlim=(0, at[-1]))


def _mark_failures(axes: Axes, at: Sequence[float], series: Sequence[Sample]) -> None:
    failed = [(when, sample["failures"]) for when, sample in zip(at, series) if sample["failures"]]
    if failed:
        top = 0.9 * axes.get_ylim()[1]
        axes.plot([when for when, _ in failed], [top] * len(failed), "x", color=ORANGE, label="requests failed")
        axes.legend(loc="lower right", fontsize=8)
