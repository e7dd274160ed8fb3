"""Every query of the dashboards and of the rules, asked of a real Prometheus that scrapes the real server."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dressform import Client, InvalidRequest
from dressform_bench.dashboards import board
from dressform_bench.dashboards.prometheus import Prometheus, PrometheusError
from dressform_server import Server

MONITORING = Path(__file__).parents[2] / "docker/monitoring"
BOARDS = {path.stem: board.read(path) for path in sorted((MONITORING / "dashboards").glob("*.json"))}
ROUNDS = 30

WITHOUT_DATA = {
    "machine: GPU, {{instance}} {{gpu_uuid}}": "no GPU here",
    "machine: GPU memory, {{instance}} used": "no GPU here",
    "machine: GPU memory, {{instance}} total": "no GPU here",
    "machine: GPU power, {{instance}}": "no GPU here",
    "machine: GPU power, {{instance}} limit": "no GPU here",
    "machine: annotation Alerts": "nothing is wrong",
    "denoiser: annotation Alerts": "nothing is wrong",
    "service: annotation Alerts": "nothing is wrong",
    "alert DressformAbsent": "absent() gives nothing while there is a server",
    "alert DressformStagesUnknown": "every server tells of its stages",
    "alert DressformGpuMissing": "no server here should have a GPU",
}
"""The queries that have no data on this machine, and why. They are asked, too: Prometheus must take them."""

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    target = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with Prometheus(MONITORING, [target], tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def queries() -> dict[str, str]:
    """Everything that dashboards and rules ask, by where it stands."""
    asked: dict[str, str] = {}
    for name, one in BOARDS.items():
        for panel in (*one.panels, *one.folded):
            for legend, query in panel.queries:
                asked[f"{name}: {panel.title}, {legend}"] = board.filled(query, "1m")
        asked |= {f"{name}: variable {label}": query for label, query in one.variables.items()}
        asked |= {f"{name}: annotation {mark}": board.filled(query, "1m") for mark, query in one.annotations.items()}
    for path in sorted((MONITORING / "rules").glob("*.yaml")):
        for rule in (rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]):
            if "alert" in rule:
                asked[f"alert {rule['alert']}"] = compared(rule["expr"])
            else:
                asked[f"rule {rule['record']}"] = rule["record"]
    return asked


def compared(expression: str) -> str:
    """An alert's expression with comparisons that give 0 or 1, where the alert's own give nothing while all is well."""
    parts = re.split(r"(\{[^}]*\})", expression)
    return "".join(part if part.startswith("{") else re.sub(r"(==|!=|[<>]=?)", r"\1 bool", part) for part in parts)


def test_every_query_has_data(
    server: Server, prometheus: Prometheus, photo: Image.Image, mask: Image.Image, garment: Image.Image
) -> None:
    asked = queries()
    missing = sorted(asked.keys() - WITHOUT_DATA)
    with Client(server.grpc_url, timeout=120, retries=0, headers={"dressform-client": "shop"}) as client:
        for _ in range(ROUNDS):
            client.inpaint(photo, mask, "a red coat", num_inference_steps=4, guidance_end=0.5)
            client.tryon(photo, garment, mask=mask, category="upper", num_inference_steps=2)
            with pytest.raises(InvalidRequest):
                client.inpaint(photo, Image.new("L", photo.size), "an empty mask")
            missing = [name for name in missing if not prometheus.now(asked[name])]
            if not missing:
                break
            time.sleep(1)  # a scrape, and an evaluation
    assert not missing, "\n".join(missing)
    assert {rule["name"]: rule["lastError"] for rule in prometheus.rules() if rule["health"] != "ok"} == {}
    assert [name for name in WITHOUT_DATA if prometheus.now(asked[name])] == []


def test_a_query_that_is_none_is_told(prometheus: Prometheus) -> None:
    with pytest.raises(PrometheusError, match="parse error"):
        prometheus.now("sum by (")


def test_comparisons_of_alerts_are_told_from_those_of_labels() -> None:
    assert compared('up{a!="b"} == 0 and x > 1.5') == 'up{a!="b"} == bool 0 and x > bool 1.5'
