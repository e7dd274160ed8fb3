"""Write the dashboards, and the rules for the Prometheus operator."""

from __future__ import annotations

from pathlib import Path

from pages.denoiser import DENOISER
from pages.grafana import written
from pages.machine import MACHINE
from pages.operator import OUT, prometheus_rule
from pages.service import SERVICE

DASHBOARDS = (SERVICE, DENOISER, MACHINE)


def main() -> None:
    """Write each to its file."""
    folder = Path(__file__).parents[1] / "dashboards"
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.name}.json").write_text(written(dashboard), encoding="utf-8")
    OUT.write_text(prometheus_rule(), encoding="utf-8")


if __name__ == "__main__":
    main()
