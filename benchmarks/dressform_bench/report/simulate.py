"""``simulate``: fleets of servers, how many of them a rate needs, and how far the simulation is from a real server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator, PercentFormatter

from dressform_bench.report.chart import BLUE, GREY, INK, ORANGE, PURPLE, in_a_row, panels
from dressform_bench.report.section import Chart, Column, Section, Table, columns, counted, listed, percent, short
from dressform_bench.report.slo import ANSWERED, WITHIN

Row = Mapping[str, Any]

STYLES: Mapping[str, Mapping[str, Any]] = {
    "round_robin": {"color": ORANGE, "marker": "s", "linestyle": "--"},
    "least_loaded": {"color": BLUE, "marker": "o"},
}
_OTHER: Mapping[str, Any] = {"color": PURPLE, "marker": "^", "linestyle": ":"}

MOST_PANELS = 4
"""Rates that fleets are drawn at, at most."""

FIGURES = {"p50_s": ("p50", "s"), "p95_s": ("p95", "s"), "goodput_per_s": ("goodput", "requests / s")}
"""What is validated: its name and unit."""

_COLUMNS: Sequence[Column] = (
    ("servers", "servers", str),
    ("routing", "routing", lambda name: _words(name)),
    ("offered, requests/s", "offered_per_s", short),
    *WITHIN,
    *ANSWERED,
)


def section(record: Mapping[str, Any]) -> Section:
    """The section of a run."""
    rows, needed, validation = record["rows"], record["servers_needed"], record.get("validation") or []
    parts: list[Chart | Table] = []
    if any(row["servers"] for row in needed):
        alt = "Servers needed over the offered rate, for each routing."
        parts.append(Chart("needed", _needed(needed), alt, lambda f, _: _draw_needed(f, record), (8, 3.6), (4.3, 3.6)))
    if needed:
        parts.append(_needed_table(needed))
    if rows:
        loads = _loads(rows)
        alt = "Share within the SLO and p95 latency over the number of servers, at several loads, for each routing."
        sizes = ((10.5, 4.8), (4.3, 0.7 + 2.2 * len(loads)))
        parts.append(Chart("fleets", _fleets(rows), alt, lambda f, n: _draw_fleets(f, n, record, loads), *sizes))
        parts.append(columns("fleets", "Every fleet that was simulated", _COLUMNS, rows))
    if validation:
        alt = "Measured and simulated p50, p95 and goodput over the offered rate."
        sizes = ((10.5, 3.5), (4.3, 7.6))
        parts.append(
            Chart("validation", _validated(validation), alt, lambda f, n: _draw_validation(f, n, validation), *sizes)
        )
        parts.append(_validation_table(validation))
    return Section(f"Simulation: {record['model'] or 'a model'}", finding(record), tuple(_notes(record)), tuple(parts))


def finding(record: Mapping[str, Any]) -> str:
    """How many servers are needed, else what the fleets keep; and the error against a real server."""
    told = [_needed(record["servers_needed"])] if any(row["servers"] for row in record["servers_needed"]) else []
    if not told and record["rows"]:
        told = [_fleets(record["rows"])]
    if record.get("validation"):
        sentence = _validated(record["validation"])
        told.append(sentence[:1].lower() + sentence[1:] if told else sentence)
    return "; ".join(told) or "Nothing was simulated"


def _notes(record: Mapping[str, Any]) -> list[str]:
    times = record["step_time_model"]
    notes = []
    if times.get("source"):
        notes.append(f"Step times: {times['source']}.")
    if isinstance(times.get("step_seconds"), Mapping):
        told = [f"{rows} rows {short(1000 * value)}" for rows, value in times["step_seconds"].items()]
        notes.append(f"A UNet call, in ms: {', '.join(told)}.")
    if record.get("slo") and record.get("kept_share"):
        slo = str(record["slo"]).replace(" x ", " × ")
        notes.append(f"The SLO: an answer within {slo}; enough servers keep it for {percent(record['kept_share'])}.")
    return notes


def _needed(needed: Sequence[Row]) -> str:
    """At the highest rate at which all routings were enough, or else any."""
    rates = sorted({row["rate_per_s"] for row in needed}, reverse=True)
    at = {rate: {row["routing"]: row for row in needed if row["rate_per_s"] == rate} for rate in rates}
    rate = next((rate for rate in rates if all(row["servers"] for row in at[rate].values())), None)
    if rate is None:
        rate = next(rate for rate in rates if any(row["servers"] for row in at[rate].values()))
    enough = sorted((row for row in at[rate].values() if row["servers"]), key=lambda row: int(row["servers"]))
    offered = short(enough[0]["offered_per_s"])
    if len(enough) > 1 and len({row["servers"] for row in enough}) == 1:
        return f"{offered} requests/s need {counted(enough[0]['servers'], 'server')} by either routing"
    units = [" server" if enough[0]["servers"] == 1 else " servers", *[""] * (len(enough) - 1)]
    told = [f"{_servers(row, unit)} by {_words(row['routing'])}" for row, unit in zip(enough, units)]
    return f"{offered} requests/s need {listed(told)} routing"


def _servers(row: Row, unit: str = "") -> str:
    """How many are needed, and between what that lay for other arrivals."""
    low, high = row["servers_range"]
    told = "more than tried" if row["servers"] is None else f"{row['servers']:,}"
    if low == high:
        return told + unit
    return f"{told}{unit} ({'more' if low is None else f'{low:,}'} to {'more' if high is None else f'{high:,}'})"


def _fleets(rows: Sequence[Row]) -> str:
    """Of the largest fleet, at the rate at which routing makes the most difference."""
    largest = max(row["servers"] for row in rows)
    at: dict[float, dict[str, float]] = {}
    for row in rows:
        if row["servers"] == largest:  # both routings got the same arrivals
            at.setdefault(row["offered_per_s"], {})[row["routing"]] = row["share_within_slo"] or 0
    rate = max(at, key=lambda rate: (max(at[rate].values()) - min(at[rate].values()), rate))
    told = [
        f"{percent(share)} by {_words(name)}" for name, share in sorted(at[rate].items(), key=lambda each: -each[1])
    ]
    fleet = counted(largest, "server")
    return f"At {short(rate)} requests/s {fleet} keep{'s' if largest == 1 else ''} the SLO for {listed(told)} routing"


def _validated(validation: Sequence[Row]) -> str:
    told = []
    for key, (name, _) in FIGURES.items():
        errors = [abs(row["error"][key]) for row in validation if row["error"][key] is not None]
        if errors:
            told.append(f"{name} by at most {percent(max(errors))}")
    rates = sorted(map(_offered, validation))
    span = (
        f"at {short(rates[0])} to {short(rates[-1])} requests/s"
        if len(rates) > 1
        else f"at {short(rates[0])} requests/s"
    )
    return f"Against a real server {span} the simulation errs in {listed(told)}"


_NEEDED: Sequence[Column] = (
    ("offered, requests/s", "offered_per_s", short),
    ("routing", "routing", lambda name: _words(name)),
    ("servers", "told", str),
    *WITHIN,
)


def _needed_table(needed: Sequence[Row]) -> Table:
    rows = sorted(needed, key=lambda row: float(row["rate_per_s"]))
    caption = "Servers that keep the SLO: the median over several draws of the arrivals, and the least and the most"
    return columns("needed", caption, _NEEDED, [{**row, "told": _servers(row)} for row in rows])


def _validation_table(validation: Sequence[Row]) -> Table:
    extra = [
        (key, name)
        for key, name in (("own_error", "error, own times"), ("spread", "spread of the server"))
        if key in validation[0]
    ]
    cells = tuple(
        (
            short(_offered(row)),
            f"{row['measured']['offered']:,}" if "offered" in row["measured"] else "–",
            f"{name}, {unit}",
            short(row["measured"][key]),
            short(row["simulated"][key]),
            _signed(row["error"][key]),
            *(_signed((row.get(which) or {}).get(key)) for which, _ in extra),
        )
        for row in validation
        for key, (name, unit) in FIGURES.items()
    )
    head = ("offered, requests/s", "requests", "figure", "measured", "simulated", "error", *(name for _, name in extra))
    return Table("validation", "The simulation beside a real server, with the same arrivals", head, cells)


def _offered(row: Row) -> float:
    """The rate that the schedule really held."""
    return float(row["measured"]["offered_per_s"])


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.0f} %"


def _words(routing: str) -> str:
    return routing.replace("_", "-")


def _style(routing: str) -> Mapping[str, Any]:
    return {**STYLES.get(routing, _OTHER), "label": _words(routing)}


def _loads(rows: Sequence[Row]) -> list[float]:
    """As many as are drawn."""
    loads = sorted({float(row["load"]) for row in rows})
    if len(loads) <= MOST_PANELS:
        return loads
    return [loads[round(k * (len(loads) - 1) / (MOST_PANELS - 1))] for k in range(MOST_PANELS)]


def _log(axis: Any) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw_needed(figure: FigureBase, record: Mapping[str, Any]) -> None:
    axes = in_a_row(figure, 1, True)[0]
    needed = record["servers_needed"]
    for routing in dict.fromkeys(row["routing"] for row in needed):
        found = sorted(
            (row["offered_per_s"], row["servers"]) for row in needed if row["routing"] == routing and row["servers"]
        )
        axes.plot([rate for rate, _ in found], [servers for _, servers in found], **_style(routing))
        for rate, servers in found:
            above = routing != "least_loaded"
            place = (-5, 4) if above else (5, -4)
            how: dict[str, Any] = {"ha": "right" if above else "left", "va": "bottom" if above else "top", "size": 8.5}
            axes.annotate(
                f"{servers:,}",
                (rate, servers),
                place,
                textcoords="offset points",
                color=_style(routing)["color"],
                **how,
            )
    rates = sorted({row["offered_per_s"] for row in needed if row["servers"]})
    solo = record.get("solo_capacity_per_s")
    if solo and len(rates) > 1:
        label = "solo capacity (no batching, no queue)"
        axes.plot([rates[0], rates[-1]], [rates[0] / solo, rates[-1] / solo], color=GREY, linestyle=":", label=label)
    axes.set(xscale="log", yscale="log", xlabel="offered rate (requests / s)", ylabel="servers that keep the SLO")
    axes.margins(0.09)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper left")


def _draw_fleets(figure: FigureBase, narrow: bool, record: Mapping[str, Any], loads: Sequence[float]) -> None:
    grid = (
        panels(figure, len(loads), 2, sharex=True, sharey="col")
        if narrow
        else panels(figure, 2, len(loads), sharex=True, sharey="row")
    )
    pairs = grid if narrow else [[above, below] for above, below in zip(*grid)]
    fleets = sorted({row["servers"] for row in record["rows"]})
    for place, (load, (share, latency)) in enumerate(zip(loads, pairs)):
        for routing in dict.fromkeys(row["routing"] for row in record["rows"]):
            rows = sorted(
                (row for row in record["rows"] if row["routing"] == routing and row["load"] == load),
                key=lambda row: row["servers"],
            )
            for axes, key in ((share, "share_within_slo"), (latency, "p95_s")):
                values = [float("nan") if row[key] is None else row[key] for row in rows]
                axes.plot([row["servers"] for row in rows], values, **_style(routing))
        if record.get("kept_share"):
            share.axhline(record["kept_share"], color=INK, linewidth=1)
        share.set(xscale="log", ylim=(0, 1.05))
        share.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        latency.set(xscale="log", yscale="log")
        _log(latency.yaxis)
        for axes in (share, latency):
            _axis_of_servers(axes, fleets, narrow)
        first, last = place == 0, place == len(loads) - 1
        share.set_title(f"{load:g} × solo capacity a server")
        if narrow or first:
            share.set_ylabel("within the SLO")
            latency.set_ylabel("p95 latency, s")
        if last or not narrow:
            latency.set_xlabel("servers")
            if narrow:
                share.set_xlabel("servers")
    handles, labels = pairs[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)


def _axis_of_servers(axes: Axes, fleets: Sequence[int], narrow: bool) -> None:
    axes.xaxis.set_major_locator(FixedLocator([float(count) for count in fleets]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.tick_params(axis="x", labelsize=8 if narrow else 9)


def _draw_validation(figure: FigureBase, narrow: bool, validation: Sequence[Row]) -> None:
    rows = sorted(validation, key=_offered)
    rates = [_offered(row) for row in rows]
    every = in_a_row(figure, len(FIGURES), narrow)
    for axes, (key, (name, unit)) in zip(every, FIGURES.items()):
        for which, colour, marker, line in (("measured", INK, "o", "-"), ("simulated", BLUE, "D", "--")):
            values = [float("nan") if row[which][key] is None else row[which][key] for row in rows]
            axes.plot(rates, values, label=which, color=colour, marker=marker, linestyle=line)
        for row in rows:
            if row["error"][key] is not None:
                higher = max(row["measured"][key], row["simulated"][key])
                axes.annotate(
                    _signed(row["error"][key]),
                    (_offered(row), higher),
                    (0, 7),
                    textcoords="offset points",
                    ha="center",
                    size=8.5,
                )
        axes.set(xlabel="offered rate (requests / s)", ylabel=unit)
        axes.set_ylim(0, 1.22 * axes.get_ylim()[1])
        axes.margins(x=0.12)
        axes.set_title(f"{name[0].upper()}{name[1:]}" if name == "goodput" else f"{name} latency")
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
