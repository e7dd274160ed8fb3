"""Dashboards drawn from data: what is read from their JSON, asked of Prometheus, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dressform_bench.dashboards import board, draw
from dressform_bench.dashboards.__main__ import pictures
from dressform_bench.dashboards.prometheus import Prometheus, PrometheusError, Series, local

MONITORING = Path(__file__).parents[2] / "docker/monitoring"
START = 1_800_000_000.0
TIMES = tuple(START + i for i in range(60))


class Recorded:
    """Answers as Prometheus would: a rising line for each query, buckets for histograms, nothing for ``without``."""

    def __init__(self, without: str = "") -> None:
        self.without = without
        self.asked: list[str] = []

    def over(self, query: str, start: float, end: float, step: float) -> list[Series]:
        self.asked.append(query)
        if self.without and self.without in query:
            return []
        if "start_time_seconds" in query and "1000" in query:
            return [Series({"instance": "a"}, TIMES, (1000 * (START + 5),) * 60)]
        if query.startswith("sum by (le)"):
            return [Series({"le": le}, TIMES, (i + 1.0,) * 60) for i, le in enumerate(("1", "2", "+Inf"))]
        return [Series({"instance": "a", "state": "active"}, TIMES, tuple(i / 60 for i in range(60)))]


def drawn(folder: Path, prometheus: Any) -> list[str]:
    return pictures(prometheus, MONITORING / "dashboards", START, START + 60, folder)


def test_every_dashboard_is_drawn_with_all_its_panels(tmp_path: Path) -> None:
    prometheus = Recorded()
    assert drawn(tmp_path, prometheus) == []
    assert {path.name for path in tmp_path.iterdir()} == {"service.png", "denoiser.png", "machine.png"}
    for path in tmp_path.iterdir():
        one = board.read(MONITORING / "dashboards" / f"{path.stem}.json")
        lines = max(panel.grid[1] + panel.grid[3] for panel in one.panels)
        with Image.open(path) as image:
            assert image.width == pytest.approx(24 * draw.COLUMN_INCHES * 100, abs=1)
            pixels = np.asarray(image.convert("L"))
        for panel in one.panels:
            x, y, w, h = panel.grid
            top = round(100 * (draw.TITLE_INCHES + y * draw.LINE_INCHES))
            left = round(100 * x * draw.COLUMN_INCHES)
            cell = pixels[
                top : top + round(100 * h * draw.LINE_INCHES), left : left + round(100 * w * draw.COLUMN_INCHES)
            ]
            assert (cell < 128).mean() > 0.002, f"{panel.title} is empty"
        assert pixels.shape[0] == pytest.approx(100 * (lines * draw.LINE_INCHES + draw.TITLE_INCHES), abs=1)
    assert not [query for query in prometheus.asked if "$" in query or "nv_gpu" in query]


def test_a_panel_without_data_is_told(tmp_path: Path) -> None:
    assert drawn(tmp_path, Recorded(without="nv_cpu_utilization")) == ["machine: CPU"]


def test_legends_are_grafanas() -> None:
    series = Series({"instance": "a:1", "rows": "4"}, (), ())
    assert draw.legend("{{instance}}, {{rows}} rows", series) == "a:1, 4 rows"
    assert draw.legend("p95", series) == "p95"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123456, "s", "12.3 ms"),
        (25_276_510_208, "bytes", "25.3 GB"),
        (0.9954, "percentunit", "99.5 %"),
        (0.25, "reqps", "0.25/s"),
        (3, "short", "3"),
        (0, "s", "0 s"),
    ],
)
def test_quantities_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    assert draw.quantity(value, unit) == text


def test_the_configuration_for_a_machine_keeps_all_but_addresses_and_times() -> None:
    config = local(MONITORING, ["127.0.0.1:1"])
    (scrape,) = config["scrape_configs"]
    assert scrape["job_name"] == "dressform"
    assert scrape["static_configs"] == [{"targets": ["127.0.0.1:1"]}]
    assert [list(Path(pattern).parent.glob(Path(pattern).name)) for pattern in config["rule_files"]] != [[]]


def test_a_machine_without_prometheus_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrometheusError, match="not installed"):
        Prometheus(MONITORING, [], tmp_path)


def test_a_line_breaks_where_points_are_missing() -> None:
    times, values = draw._with_gaps(Series({}, (1.0, 2.0, 5.0, 6.0), (1.0, 2.0, 3.0, 4.0)))
    assert times == [1, 2, 3, 5, 6]
    assert np.array_equal(values, [1, 2, np.nan, 3, 4], equal_nan=True)
