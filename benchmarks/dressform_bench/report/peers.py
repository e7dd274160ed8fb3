"""``peers``: seconds of a picture by each, beside the limit, and what serving costs beside the bare engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dressform_bench.peers.request import REFERENCE
from dressform_bench.report.chart import BLUE, GREY, INK, SKY, in_a_row
from dressform_bench.report.section import (
    Chart,
    Code,
    Column,
    Section,
    Table,
    columns,
    counted,
    listed,
    percent,
    seconds,
    short,
)

Row = Mapping[str, Any]

NEAR_MS, NEAR_SHARE = 30.0, 0.03
"""How much longer than the bare engine one user may wait: the target, milliseconds and a share of the bare time."""

KINDS = {"served": ("served by Triton", BLUE), "bare": ("the bare engine", SKY), "": ("other pipelines", GREY)}
"""By the word before the colon: what it is called, and its colour."""

_COLUMNS: Sequence[Column] = (
    ("peer", "peer", Code),
    ("users at once", "users", str),
    ("seconds a picture", "seconds", short),
    ("pictures a minute", "images_per_minute", short),
    ("times as fast", "times_as_fast", lambda value: f"{short(value)} ×"),
    ("first picture, s", "first_image_seconds", short),
    ("peak memory, GB", "peak_gigabytes", "{:.2f}".format),
    ("PSNR, dB", "psnr", "{:.1f}".format),
    ("limit, s", "limit_seconds", short),
    ("share of the limit", "share_of_limit", percent),
)


def section(record: Mapping[str, Any]) -> Section:
    """The section of a run."""
    rows = [{"users": 1, **row} for row in record["rows"]]
    size = f"{record['width']} × {record['height']} pixels, {counted(record['steps'], 'step')}"
    parts: list[Chart | Table] = []
    if rows:
        height = 0.75 + 0.33 * len({row["peer"] for row in rows})
        panes = len({row["users"] for row in rows})
        parts = [
            Chart(
                "peers",
                finding(record),
                f"Bars: seconds a picture of each peer, {size}; the limit of each beside them.",
                lambda figure, narrow: _draw(figure, narrow, rows),
                (10.5 if panes > 1 else 8, height + 0.7),
                (4.3, panes * height + 0.9),
            ),
            _summary(rows),
            columns("peers", f"All figures, {size}", _COLUMNS, _ranked(rows)),
        ]
    beside = _served(rows)
    if beside:
        parts.append(_beside(beside))
    if record.get("errors"):
        failed = tuple((Code(peer), Code(text)) for peer, text in record["errors"].items())
        parts.append(Table("errors", "Peers that failed here, and why", ("peer", "error"), failed))
    users = {row["users"] for row in rows}
    heading = f"Peers: {record['model'] or 'a model'}, {size}"
    if len(users) == 1:
        heading += f", {counted(users.pop(), 'user')}"
    return Section(heading, finding(record), tuple(_notes(record, rows)), tuple(parts))


def finding(record: Mapping[str, Any]) -> str:
    """Who is fastest, and by how much; with each its PSNR, for a worse picture is made sooner."""
    rows = [{"users": 1, **row} for row in record["rows"]]
    if not rows:
        return "No peer could paint a picture"
    first = rows[0]["peer"]
    quality = {row["peer"]: f"{row['psnr']:.0f} dB" for row in rows if row.get("psnr") is not None}
    called = {row["peer"]: row["peer"] for row in rows}
    called |= {peer: f"{peer} ({told})" for peer, told in quality.items() if peer != REFERENCE}
    sentences = []
    for users in sorted({row["users"] for row in rows}):
        there = {row["peer"]: row["seconds"] for row in rows if row["users"] == users}
        usable = {peer: value for peer, value in there.items() if _kind(peer) != "bare"} or there
        best = min(usable, key=lambda peer: usable[peer])
        others = {peer: value for peer, value in usable.items() if not _kind(peer) and peer != best}
        against = [first] if first in usable and first != best else []
        rival = min(others, key=lambda peer: others[peer], default=first)
        if rival not in (first, best) and _kind(best) == "served":
            against.append(rival)
        faster = listed([_faster(usable[peer] / usable[best], called[peer]) for peer in against])
        if _kind(best) != "served" and (ours := [peer for peer in usable if _kind(peer) == "served"]):
            own = min(ours, key=lambda peer: usable[peer])
            faster += f"{', ' if faster else ''}against {seconds(usable[own])} of {called[own]}"
        who = "one user" if users == 1 else counted(users, "user")
        sentences.append(
            f"for {who} {called[best]} takes {seconds(usable[best])} a picture" + (f", {faster}" if faster else "")
        )
    return _capital("; ".join(sentences))


def _faster(times: float, peer: str) -> str:
    """``times`` as fast as ``peer``, in words; a difference that rounds away is none."""
    told = short(times, 2)
    return f"as fast as {peer}" if float(told) == 1 else f"{told} times as fast as {peer}"


def _notes(record: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    notes = []
    if any(row.get("psnr") is not None for row in rows):
        notes.append(f"PSNR is to the picture of {REFERENCE}; 100 dB is the same picture.")
    rates = (record.get("limit") or {}).get("flops_per_second") or {}
    count = (record.get("limit") or {}).get("flops_per_image")
    if rates and count:
        told = listed([f"{short(rate / 1e9)} GFLOP/s in {name}" for name, rate in rates.items()])
        notes.append(
            f"The limit is {short(count / 1e9)} GFLOP a picture, counted at export, over the rate of a product of "
            f"two large matrices, measured beside the runs: {told}."
        )
    beyond = [row["peer"] for row in rows if (row.get("share_of_limit") or 0) > 1]
    if beyond:
        notes.append(
            f"{listed(sorted(set(beyond)))} went beyond that limit: the product was not the fastest that this machine "
            "can do (int8 may pass the limit of BF16)."
        )
    return notes


def _served(rows: Sequence[Row]) -> list[tuple[str, int, float, float]]:
    """Engine, users, seconds bare and served, of engines that have both."""
    times = {(row["peer"], row["users"]): row["seconds"] for row in rows}
    found = [
        (peer.partition(":")[2], users, times["bare:" + peer.partition(":")[2], users], value)
        for (peer, users), value in times.items()
        if _kind(peer) == "served" and ("bare:" + peer.partition(":")[2], users) in times
    ]
    return sorted(found, key=lambda each: each[1])


def _summary(rows: Sequence[Row]) -> Table:
    """A line for each peer, in the order in which they ran."""
    users = sorted({row["users"] for row in rows})
    at = {(row["peer"], row["users"]): row for row in rows}
    first = rows[0]["peer"]
    head = ("peer", *(f"s a picture, {counted(count, 'user')}" for count in users))
    head += tuple(f"times as fast as {first}, {counted(count, 'user')}" for count in users)
    head += (
        "first picture, s",
        "peak memory, GB",
        f"PSNR to {REFERENCE}, dB",
        "limit, s a picture",
        "limit / best time",
    )
    cells = []
    for peer in dict.fromkeys(row["peer"] for row in rows):
        own = [at.get((peer, count), {}) for count in users]
        last = next(row for row in reversed(own) if row)
        shares = [row["share_of_limit"] for row in own if row.get("share_of_limit") is not None]
        cells.append(
            (
                Code(peer),
                *(short(row.get("seconds")) for row in own),
                *(f"{short(row['times_as_fast'], 2)} ×" if row.get("times_as_fast") else "–" for row in own),
                short(last.get("first_image_seconds")),
                "–" if last.get("peak_gigabytes") is None else f"{last['peak_gigabytes']:.1f}",
                "–" if last.get("psnr") is None else f"{last['psnr']:.0f}",
                short(last.get("limit_seconds")),
                percent(max(shares, default=None)),
            )
        )
    return Table("summary", "All peers", head, tuple(cells))


def _beside(beside: Sequence[tuple[str, int, float, float]]) -> Table:
    cells = tuple(
        (
            Code(engine),
            str(users),
            short(bare),
            short(served),
            f"{1000 * (served - bare):+,.0f}",
            f"{1000 * NEAR_SHARE * bare + NEAR_MS:,.0f}" if users == 1 else "–",
            percent(bare / served),
        )
        for engine, users, bare, served in beside
    )
    times = ("bare, s a picture", "served, s a picture", "difference, ms", "target: 3 % + 30 ms")
    head = ("engine", "users at once", *times, "throughput kept")
    return Table("served", "Served beside the engine's own calls", head, cells)


def _ranked(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["users"], row["seconds"]))


def _draw(figure: FigureBase, narrow: bool, rows: Sequence[Row]) -> None:
    crowds = sorted({row["users"] for row in rows})
    order = [row["peer"] for row in _ranked(rows) if row["users"] == crowds[-1]]
    order += sorted({row["peer"] for row in rows} - set(order))
    longest = max(max(row["seconds"], row.get("limit_seconds") or 0) for row in rows)
    for axes, users in zip(in_a_row(figure, len(crowds), narrow, sharey=True), crowds):
        for row in (row for row in rows if row["users"] == users):
            place, value, limit = order.index(row["peer"]), row["seconds"], row.get("limit_seconds")
            axes.barh(place, value, height=0.72, color=KINDS[_kind(row["peer"])][1])
            if limit is not None:
                axes.plot([limit, limit], [place - 0.44, place + 0.44], color=INK, linewidth=1.6)
            times = row.get("times_as_fast")
            told = short(value) + ("" if times is None else f"  ({short(times, 2)}×)")
            axes.annotate(
                told, (max(value, limit or 0), place), (5, 0), textcoords="offset points", va="center", size=9
            )
        axes.set(xlim=(0, 1.42 * longest if narrow else 1.3 * longest), xlabel="seconds a picture")
        axes.set(yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.4, -0.6))
        axes.set_title(f"{counted(users, 'user')} at once")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    there = {_kind(row["peer"]) for row in rows}
    handles: list[Patch | Line2D] = [
        Patch(color=colour, label=name) for key, (name, colour) in KINDS.items() if key in there
    ]
    if any(row.get("limit_seconds") is not None for row in rows):
        handles.append(Line2D([], [], color=INK, linewidth=1.6, label="limit (FLOPs / matrix product)"))
    figure.legend(handles=handles, loc="outside upper left", ncols=2 if narrow else len(handles), columnspacing=1.2)


def _kind(peer: str) -> str:
    kind, colon, _ = peer.partition(":")
    return kind if colon and kind in KINDS else ""


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
