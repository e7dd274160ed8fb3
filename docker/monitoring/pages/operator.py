"""The rules as the Prometheus operator takes them: one PrometheusRule of all groups of ``rules/*.yaml``."""

from __future__ import annotations

from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[1] / "rules"
OUT = Path(__file__).parents[2] / "kubernetes/components/monitoring/rules.yaml"


def prometheus_rule() -> str:
    """The object as YAML."""
    groups = [group for path in sorted(FOLDER.glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "dressform", "labels": {"app.kubernetes.io/name": "dressform-server"}},
        "spec": {"groups": groups},
    }
    head = "# Made of docker/monitoring/rules by `python -m pages` in docker/monitoring: edit there.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=120)
