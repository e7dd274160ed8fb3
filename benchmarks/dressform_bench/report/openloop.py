"""``openloop``: what rates keep the SLO, batched by step and by request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from dressform_bench.report.chart import BLUE, GREY, INK, ORANGE, in_a_row
from dressform_bench.report.section import Chart, Column, Section, Table, columns, percent, short

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
    ("within the SLO", "share_within_slo", percent),
    ("95 % interval", "share_interval", lambda ends: _ends(ends)),
    ("goodput, requests/s", "goodput_per_s", short),
    ("p50, s", "p50_s", short),
    ("p95, s", "p95_s", short),
    ("p99, s", "p99_s", short),
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
    kept = tuple(_kept(mode, rate, _of(record, mode)) for mode, rate in record["slo_rate_per_s"].items())
    head = ("batching", "requests/s", "requests", "within the SLO", "95 % interval")
    parts.append(Table("kept", "The highest rate that keeps the SLO", head, kept))
    parts.append(columns("rates", "Every rate that was tried", _COLUMNS, rows))
    slo = record["slo"].replace(" x ", " × ")
    notes = (
        f"The SLO: an answer within {slo}, for {percent(record['kept_share'])} of the requests. Latency counts from "
        "when a request was due, so that an overloaded server cannot hide; refused and failed requests are not within "
        "the SLO, and those due while the server fills are not counted.",
        f"Solo capacity, a server that takes one request at a time: {short(record['solo_capacity_per_s'])} requests/s.",
    )
    heading = f"Open loop: {record['model'] or 'a model'}, {_pattern(record['pattern'])}"
    return Section(heading, finding(record), notes, tuple(parts))


def _kept(mode: str, rate: float, rows: Sequence[Row]) -> tuple[str, ...]:
    """A mode's highest rate that keeps the SLO, and how many requests tell so."""
    row = next((row for row in rows if rate and row["offered_per_s"] == rate), None)
    if row is None:
        return mode, "none of those tried", "–", "–", "–"
    told = mode, short(rate), f"{row['offered']:,}", percent(row["share_within_slo"])
    return *told, _ends(row["share_interval"]) if row.get("share_interval") else "–"


def _ends(interval: Sequence[float]) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}"


def finding(record: Mapping[str, Any]) -> str:
    """Up to which rate each mode keeps the SLO."""
    rates = record["slo_rate_per_s"]
    told: list[str] = []
    for mode in sorted(rates, key=lambda mode: _order(mode)):
        rate, most = rates[mode], max((row["offered_per_s"] for row in _of(record, mode)), default=0)
        end = ", the highest tried" if rate and rate >= most else ""
        unit = "" if told else " requests/s"
        where = f"up to {short(rate)}{unit}{end}" if rate else "at none of the rates tried"
        told.append(f"{mode} batching {'' if told else 'keeps the SLO '}{where}")
    sentence = ", ".join(told) or "No mode was tried"
    return sentence[:1].upper() + sentence[1:]


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
    for mode in _modes(record):
        style = STYLES.get(mode, {**_OTHER, "label": f"{mode} batching"})
        rows = sorted(_of(record, mode), key=lambda row: row["offered_per_s"])
        rates = [row["offered_per_s"] for row in rows]
        for axes, key in ((share, "share_within_slo"), (goodput, "goodput_per_s"), (latency, "p95_s")):
            axes.plot(rates, [float("nan") if row[key] is None else row[key] for row in rows], **style)
        rate = record["slo_rate_per_s"].get(mode)
        if rate:
            share.plot([rate, rate], [0, record["kept_share"]], color=style["color"], linewidth=1, linestyle=":")
            place: dict[str, Any] = {
                "textcoords": "offset points",
                "rotation": 90,
                "va": "bottom",
                "ha": "right",
                "size": 8.5,
            }
            share.annotate(f"{short(rate)}/s", (rate, 0.02), (-2, 0), color=style["color"], **place)
    top = max(row["offered_per_s"] for row in record["rows"])
    kept = record["kept_share"]
    share.axhline(kept, color=INK, linewidth=1)
    share.annotate(
        f"kept: {percent(kept)}",
        (1.0, kept),
        (0, 22),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="top",
        size=8.5,
    )
    share.set(ylim=(0, 1.1), ylabel="share of the requests")
    share.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    share.set_title("Within the SLO")
    best = max(row["goodput_per_s"] for row in record["rows"])
    goodput.plot([0, top], [0, top], color=GREY, linestyle=":", linewidth=1.2)
    limit = min(top, 1.1 * best)
    goodput.annotate(
        "all that is offered",
        (0.97 * limit, limit),
        (-6, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color="#555555",
        size=8.5,
    )
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
    solo = record["solo_capacity_per_s"]
    for axes in (share, goodput, latency):
        axes.axvline(solo, color=GREY, linewidth=1, linestyle="-.")
        axes.set(xlim=(0, 1.05 * top), xlabel="offered rate (requests / s)")
    latency.annotate(
        "solo capacity",
        (solo, 0.98),
        (-3, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        rotation=90,
        va="top",
        ha="right",
        color="#555555",
        size=8.5,
    )
    handles, labels = share.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=1 if narrow else 2)
