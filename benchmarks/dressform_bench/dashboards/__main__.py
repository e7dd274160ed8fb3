"""The dashboards, drawn from a real server's data: ``dressform bench dashboards REPOSITORY OUT``.

A server of the repository (one with a parser, as the demonstration's) is put under a shop's day in minutes; a real
Prometheus with the rules of ``--monitoring`` scrapes both once a second. Then every panel's query is asked over that
time, and each dashboard drawn as a PNG in the layout of its JSON: rates over 15 s, everything chosen, vertical lines at
the annotations (blue: a server starts, red: an alert fires). Rows that are folded in the JSON (GPU) are left out.

Prints one line of JSON: how the requests ended, and the panels that had no data. Exit code 1 where there is such a one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dressform_bench.dashboards import board, draw, load
from dressform_bench.dashboards.prometheus import Prometheus, PrometheusError, Series
from dressform_server import Server, ServerError
from dressform_server.ports import chosen_ports

STEP_SECONDS = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="dressform bench dashboards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path, help="an exported repository with a garment parser")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--monitoring", type=Path, default=Path("docker/monitoring"), help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=180, help="how long the load lasts (default: %(default)s)")
    parser.add_argument("--visitors", type=int, default=36, help="at the fullest (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _shown(options, Path(folder))
    except (ServerError, PrometheusError) as error:
        print(f"dashboards: {error}", file=sys.stderr)
        return 1


def _shown(options: argparse.Namespace, folder: Path) -> int:
    ports = chosen_ports("127.0.0.1", {"http": 0, "grpc": 0, "metrics": 0})
    target = f"127.0.0.1:{ports['metrics']}"
    with Prometheus(options.monitoring, [target], folder) as prometheus:
        start = time.time()
        server = Server(
            options.repository, http_port=ports["http"], grpc_port=ports["grpc"], metrics_port=ports["metrics"]
        )
        with server:
            server.wait_ready(240)
            ended = load.day(server.grpc_url, options.seconds, options.visitors)
            empty = pictures(prometheus, options.monitoring / "dashboards", start, time.time(), options.out)
    print(json.dumps({"benchmark": "dashboards", "seconds": options.seconds, "ended": dict(ended), "empty": empty}))
    return 1 if empty else 0


def pictures(prometheus: Prometheus, dashboards: Path, start: float, end: float, out: Path) -> list[str]:
    """Draw each dashboard over ``start`` to ``end`` (unix seconds); the panels that had no data."""
    out.mkdir(parents=True, exist_ok=True)
    empty = []
    for path in sorted(dashboards.glob("*.json")):
        one = board.read(path)
        panels = [_drawn(prometheus, panel, start, end) for panel in one.panels]
        empty += [f"{path.stem}: {drawn.panel.title}" for drawn in panels if not drawn.lines]
        marks = {name: _marks(prometheus, name, query, start, end) for name, query in one.annotations.items()}
        draw.board(one, panels, draw.Span(start, end, marks), out / f"{path.stem}.png")
    return empty


def _drawn(prometheus: Prometheus, panel: board.Panel, start: float, end: float) -> draw.Drawn:
    lines = [
        (draw.legend(template, series), series)
        for template, query in panel.queries
        for series in _in_order(prometheus.over(board.filled(query, draw.WINDOW), start, end, STEP_SECONDS))
    ]
    return draw.Drawn(panel, lines)


def _in_order(found: Sequence[Series]) -> list[Series]:
    """By counts of rows where they have them: 2 before 12."""
    return sorted(found, key=lambda series: float(series.labels.get("rows", "0").replace("more", "inf")))


def _marks(prometheus: Prometheus, name: str, query: str, start: float, end: float) -> list[float]:
    """Where the annotation stands: at its values in milliseconds (starts), or where its series begin (alerts)."""
    found = prometheus.over(board.filled(query, draw.WINDOW), start, end, STEP_SECONDS)
    if name == "Starts":
        return sorted({value / 1000 for series in found for value in series.values if value / 1000 >= start})
    return sorted({series.times[0] for series in found})


if __name__ == "__main__":
    sys.exit(main())
