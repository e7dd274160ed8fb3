"""Write the dashboards."""

from __future__ import annotations

from pathlib import Path

from pages.denoiser import DENOISER
from pages.grafana import written
from pages.machine import MACHINE
from pages.service import SERVICE

DASHBOARDS = (SERVICE, DENOISER, MACHINE)


def main() -> None:
    """Write each to its file."""
    folder = Path(__file__).parents[1] / "dashboards"
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.name}.json").write_text(written(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
