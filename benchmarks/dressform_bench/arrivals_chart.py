"""The chart of an ``arrivals`` report: ``python -m dressform_bench.arrivals_chart REPORT.json OUT.png``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

STYLES = {
    "step": {"color": "#0b6e99", "marker": "o", "label": "step-level (joins and leaves at every step)"},
    "request": {"color": "#d1741f", "marker": "s", "label": "request-level (one fixed batch at a time)"},
}


def main(argv: Sequence[str] | None = None) -> None:
    """Draw."""
    parser = argparse.ArgumentParser(prog="python -m dressform_bench.arrivals_chart", description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(argv)
    draw(json.loads(options.report.read_text()), options.out)


def draw(report: Mapping[str, Any], out: Path) -> None:
    """Goodput and p95 latency over the offered rate, both modes."""
    figure, (goodput, latency) = pyplot.subplots(1, 2, figsize=(11, 5), dpi=150)
    for mode, style in STYLES.items():
        rows = sorted((row for row in report["rows"] if row["mode"] == mode), key=lambda row: row["load"])
        rates = [row["offered_per_s"] for row in rows]
        for axes, name in ((goodput, "goodput_per_s"), (latency, "p95_s")):
            axes.plot(rates, [row[name] for row in rows], linewidth=2, markersize=6, **style)
        for row in rows:
            if row["refused"]:
                share = f"{row['refused'] / row['offered']:.0%} refused"
                place: dict[str, Any] = {"textcoords": "offset points", "ha": "left", "va": "center", "fontsize": 8}
                latency.annotate(share, (row["offered_per_s"], row["p95_s"]), (8, 0), color=style["color"], **place)
    top = max(row["offered_per_s"] for row in report["rows"])
    best = max(row["goodput_per_s"] for row in report["rows"])
    goodput.plot([0, top], [0, top], color="0.6", linestyle="--", linewidth=1, label="everything offered (limit)")
    goodput.set(ylim=(0, 1.15 * best), ylabel="goodput: requests within SLO per second")
    latency.set(yscale="log", ylabel="p95 latency of answered requests (s)")
    latency.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    latency.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    latency.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    solo = report["solo_capacity_per_s"]
    for axes in (goodput, latency):
        axes.set(
            xlim=(0, (1.04 if axes is goodput else 1.2) * top), xlabel="offered rate (requests per second, Poisson)"
        )
        axes.axvline(solo, color="0.6", linestyle=":", linewidth=1)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    goodput.annotate(
        "solo\ncapacity", (solo, 0), (4, 4), textcoords="offset points", color="0.4", fontsize=8, va="bottom"
    )
    handles, labels = goodput.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0.005, 0.945), ncols=3, fontsize=9.5, frameon=False
    )
    figure.suptitle(title(report), fontsize=13, fontweight="bold", x=0.01, ha="left")
    figure.text(0.01, 0.01, caption(report), fontsize=8, color="0.35")
    figure.tight_layout(rect=(0, 0.035, 1, 0.95))
    figure.savefig(out)
    pyplot.close(figure)


def title(report: Mapping[str, Any]) -> str:
    """The finding, as a sentence."""
    found = report["finding"]
    peaks = found["peak_goodput_per_s"]
    if found["peak_ratio"] is None:
        return "Within the SLO: step-level batching answers, request-level does not"
    return (
        f"Step-level batching serves {found['peak_ratio']:.2g}× the requests within the SLO "
        f"({peaks['step']:.1f} against {peaks['request']:.1f} per second at best)"
    )


def caption(report: Mapping[str, Any]) -> str:
    """What was measured."""
    steps = sorted({int(kind["kind"].split()[0]) for kind in report["kinds"]})
    pixels = report["settings"]["pixels"]
    return (
        f"{report['model']}, {pixels} × {pixels}, {report['machine']['cpus']} cores shared with the client; "
        f"{'/'.join(map(str, steps))} steps mixed; SLO {report['slo'].replace(' x ', ' × ')}; {report['created'][:10]}"
    )


if __name__ == "__main__":
    main()
