"""``openloop``: what rates keep the SLO, batched by step and by request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import FigureBase
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from dressform_bench.goodput import bracket
from dressform_bench.report.chart import BLUE, GREY, INK, ORANGE, in_a_row
from dressform_bench.report.section import Chart, Column, Section, Table, columns, percent, short
from dressform_bench.report.slo import ANSWERED, WITHIN, interval

Row = Mapping[str, Any]

STYLES: Mapping[str, Mapping[str, Any]] = {
    "step": {"color": BLUE, "marker": "o", "label": "step batching (jobs join and leave at every step)"},
    "request": {
        "color": ORANGE,
        "marker": "s",
        "linestyle": "--",
        "label": "request batching (a fixed batch at a time)",
    },
}
_OTHER: Mapping[str, Any] = {"color": GREY, "marker": "^"}

_COLUMNS: Sequence[Column] = (
    ("batching", "mode", str),
    ("offered, requests/s", "offered_per_s", short),
    ("requests", "offered", "{:,}".format),
    *WITHIN,
    *ANSWERED,
    ("jobs in a UNet call", "mean_batch", short),
    ("refused", "refused", "{:,}".format),
    ("failed", "failed", "{:,}".format),
)


def section(record: Mapping[str, Any]) -> Section:
    """The section of a run."""
    rows = [row for mode in _modes(record) for row in sorted(_of(record, mode), key=lambda row: row["offered_per_s"])]
    parts: list[Chart | Table] = []
    if rows:
        parts.append(
            Chart(
                "openloop",
                finding(record),
                "Over the offered rate, for each kind of batching: share within the SLO, goodput, and p95 latency.",
                lambda figure, narrow: _draw(figure, narrow, record),
                (10.5, 3.9),
                (4.3, 8.4),
            )
        )
    kept = tuple(_kept(record, mode) for mode in _modes(record))
    head = ("batching", "kept at, requests/s", "requests", "within the SLO", "95 % interval", "no longer at")
    parts.append(Table("kept", "The highest rate that keeps the SLO", head, kept))
    parts.append(columns("rates", "Every rate that was tried", _COLUMNS, rows))
    slo = record["slo"].replace(" x ", " × ")
    notes: tuple[str, ...] = (
        f"The SLO: an answer within {slo}, for {percent(record['kept_share'])} of the requests. Latency counts from "
        "when a request was due, so that an overloaded server cannot hide; refused and failed requests are not within "
        "the SLO, and those due while the server fills are not counted.",
        f"Solo capacity, a server that takes one request at a time: {short(record['solo_capacity_per_s'])} requests/s.",
    )
    what = [record["model"] or "a model", *_engine(record), _pattern(record["pattern"])]
    return Section(f"Open loop: {', '.join(what)}", finding(record), notes, tuple(parts))


def _engine(record: Mapping[str, Any]) -> list[str]:
    """What computed; where the UNet was asleep, nothing did that counts."""
    settings = record["settings"]
    return [settings["engine"]] if settings.get("engine") and not settings.get("device") else []


def _kept(record: Mapping[str, Any], mode: str) -> tuple[str, ...]:
    """A mode's highest rate that keeps the SLO, how many requests tell so, and the next that was tried."""
    kept, missed = _bracket(record, mode)
    beyond = "all tried were kept" if missed is None else short(missed)
    row = next((row for row in _of(record, mode) if kept and row["offered_per_s"] == kept), None)
    if row is None:
        return mode, "none of those tried", "–", "–", "–", beyond
    ends = interval(row["share_interval"]) if row.get("share_interval") else "–"
    return mode, short(kept), f"{row['offered']:,}", percent(row["share_within_slo"]), ends, beyond


def _bracket(record: Mapping[str, Any], mode: str) -> tuple[float, float | None]:
    return bracket(_of(record, mode), record["kept_share"])


def finding(record: Mapping[str, Any]) -> str:
    """Between which rates that were tried each mode stops to keep the SLO."""
    told = [
        f"{_where(*_bracket(record, mode), '' if place else ' requests/s')} by {mode} batching"
        for place, mode in enumerate(_modes(record))
    ]
    return f"The highest rate that keeps the SLO is {', '.join(told)}" if told else "No rate was tried to its end"


def _where(kept: float, missed: float | None, unit: str) -> str:
    if missed is None:
        return f"at least {short(kept)}{unit} (the highest tried)"
    if not kept:
        return f"below {short(missed)}{unit} (the lowest tried)"
    low, high = sorted((kept, missed))  # what the schedules held may be the other way round than what was asked
    return f"between {short(low)} and {short(high)}{unit}"


def _modes(record: Mapping[str, Any]) -> list[str]:
    return sorted({row["mode"] for row in record["rows"]}, key=_order)


def _order(mode: str) -> tuple[int, str]:
    known = list(STYLES)
    return (known.index(mode) if mode in known else len(known), mode)


def _of(record: Mapping[str, Any], mode: str) -> list[Row]:
    return [row for row in record["rows"] if row["mode"] == mode]


def _pattern(name: str) -> str:
    known = {
        "poisson": "Poisson arrivals",
        "burst": "arrivals in bursts",
        "ramp": "a rising rate",
        "replay": "a replayed trace",
    }
    return known.get(name, f"pattern {name}")


def _draw(figure: FigureBase, narrow: bool, record: Mapping[str, Any]) -> None:
    share, goodput, latency = in_a_row(figure, 3, narrow)
    top = max(row["offered_per_s"] for row in record["rows"])
    for mode in _modes(record):
        style = STYLES.get(mode, {**_OTHER, "label": f"{mode} batching"})
        rows = sorted(_of(record, mode), key=lambda row: row["offered_per_s"])
        rates = [row["offered_per_s"] for row in rows]
        for axes, key in ((share, "share_within_slo"), (goodput, "goodput_per_s"), (latency, "p95_s")):
            axes.plot(rates, [float("nan") if row[key] is None else row[key] for row in rows], **style)
        kept_at, missed = _bracket(record, mode)
        if kept_at or missed:
            low, high = sorted((kept_at, missed or top))
            share.axvspan(low, high, color=style["color"], alpha=0.18, linewidth=0)
    kept = record["kept_share"]
    share.axhline(kept, color=INK, linewidth=1, label=f"the SLO is kept: {percent(kept)} within it")
    share.set(ylim=(0, 1.1), ylabel="share of the requests")
    share.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    share.set_title("Within the SLO")
    best = max(row["goodput_per_s"] for row in record["rows"])
    goodput.plot([0, top], [0, top], color=GREY, linestyle=":", linewidth=1.2, label="all that is offered")
    goodput.set(ylim=(0, 1.18 * best), ylabel="requests / s within the SLO")
    goodput.set_title("Goodput")
    latency.set(ylabel="s, answered requests")
    latencies = [row["p95_s"] for row in record["rows"] if row["p95_s"]]
    if latencies and max(latencies) > 5 * min(latencies):
        latency.set(yscale="log")
        latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        latency.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        latency.yaxis.set_minor_formatter(NullFormatter())
    elif latencies:
        latency.set(ylim=(0, 1.1 * max(latencies)))
    latency.set_title("p95 latency")
    for axes in (share, goodput, latency):
        axes.axvline(record["solo_capacity_per_s"], color=GREY, linewidth=1, linestyle="-.", label="solo capacity")
        axes.set(xlim=(0, 1.05 * top), xlabel="offered rate (requests / s)")
    lines = {line.get_label(): line for axes in (share, goodput) for line in axes.get_lines()}
    band = Patch(color=GREY, alpha=0.3, linewidth=0, label="shaded: where it stops being kept")
    figure.legend(handles=[*lines.values(), band], loc="outside upper left", ncols=1 if narrow else 3)
