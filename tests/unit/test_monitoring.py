"""Dashboards, rules and alerts as files: as their source makes them, complete, and each alert with its runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dressform_bench.dashboards import board
from pages.__main__ import DASHBOARDS
from pages.grafana import written

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker/monitoring"
BOARDS = {path.stem: board.read(path) for path in sorted((MONITORING / "dashboards").glob("*.json"))}
RULES = [
    rule
    for path in sorted((MONITORING / "rules").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_the_json_is_what_the_pages_make(dashboard: Any) -> None:
    file = MONITORING / "dashboards" / f"{dashboard.name}.json"
    assert file.read_text(encoding="utf-8") == written(dashboard), "run `python -m pages` in docker/monitoring"


def test_every_dashboard_is_there() -> None:
    assert BOARDS.keys() == {dashboard.name for dashboard in DASHBOARDS} == {"service", "denoiser", "machine"}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name].panels:
        left, top, width, height = panel.grid
        cells = {(x, y) for x in range(left, left + width) for y in range(top, top + height)}
        assert left + width <= 24, panel.title
        assert not taken & cells, panel.title
        assert top not in BOARDS[name].headings
        taken |= cells
    for y in {y for _, y in taken}:
        assert {x for x, row in taken if row == y} == set(range(24)), f"a hole in line {y}"


@pytest.mark.parametrize("name", BOARDS)
def test_titles_are_told_apart(name: str) -> None:
    titles = [panel.title for panel in (*BOARDS[name].panels, *BOARDS[name].folded)]
    assert len(titles) == len(set(titles))


def test_every_metric_of_ours_is_seen_somewhere() -> None:
    source = (ROOT / "model_repository/metrics.py").read_text()
    ours = set(re.findall(r'"(dressform_\w+)": Family', source))
    assert len(ours) > 10
    queries = " ".join(
        [query for one in BOARDS.values() for panel in (*one.panels, *one.folded) for _, query in panel.queries]
    )
    assert {name for name in ours if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", queries)} == set()


@pytest.mark.parametrize("query", ['up{x=~"$unknown"}', "rate(x[$__interval])"])
def test_an_unknown_variable_is_told(query: str) -> None:
    with pytest.raises(ValueError, match="a variable is left"):
        board.filled(query, "1m")


def test_every_alert_has_its_page_in_the_runbook() -> None:
    headings = re.findall(r"^### (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for name, alert in ALERTS.items():
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (ROOT / page).samefile(ROOT / "docs/operations.md")
        assert anchor == name.lower()
        assert anchor in anchors
        assert alert["labels"]["severity"] in {"page", "ticket"}
    assert {heading for heading in headings if heading.startswith("Dressform")} == set(ALERTS)


def test_the_dashboards_pictures_are_there() -> None:
    docs = ROOT / "docs"
    shown = re.findall(r"\]\((dashboards/\w+\.png)\)", (docs / "operations.md").read_text())
    assert shown
    assert {str(path.relative_to(docs)) for path in (docs / "dashboards").glob("*.png")} == set(shown)


def test_every_alert_is_tried_both_ways() -> None:
    cases = [
        case
        for test in yaml.safe_load((MONITORING / "rules.test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fired == silent == set(ALERTS)


@promtool
def test_the_alerts_fire_and_do_not_fire() -> None:
    _promtool("test", "rules", "rules.test.yaml")


@promtool
def test_prometheus_takes_the_configuration() -> None:
    _promtool("check", "config", "prometheus.yml")


def test_grafana_finds_datasource_and_dashboards() -> None:
    (source,) = yaml.safe_load((MONITORING / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((MONITORING / "provisioning/dashboards/dressform.yaml").read_text())["providers"]
    assert provider["type"] == "file"


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
