"""A dashboard read back from the JSON that Grafana is given, and the queries in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Panel:
    """A panel: where it stands on the grid of 24 columns (left, top, width, height), and its queries with legends."""

    title: str
    kind: str
    unit: str
    grid: tuple[int, int, int, int]
    queries: tuple[tuple[str, str], ...]
    stacked: bool
    limit: float | None


@dataclass(frozen=True)
class Board:
    """A dashboard: its open panels, those of collapsed rows, headings by their top, and the other queries in it."""

    title: str
    panels: tuple[Panel, ...]
    folded: tuple[Panel, ...]
    headings: Mapping[int, str]
    variables: Mapping[str, str]
    annotations: Mapping[str, str]


def read(path: Path) -> Board:
    """The dashboard in ``path``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = [entry for entry in document["panels"] if entry["type"] == "row"]
    return Board(
        title=document["title"],
        panels=tuple(_panel(entry) for entry in document["panels"] if entry["type"] != "row"),
        folded=tuple(_panel(entry) for row in rows for entry in row["panels"]),
        headings={row["gridPos"]["y"]: row["title"] for row in rows if not row["collapsed"]},
        variables={
            variable["name"]: values_of(variable["definition"])
            for variable in document["templating"]["list"]
            if variable["type"] == "query"
        },
        annotations={mark["name"]: mark["expr"] for mark in document["annotations"]["list"]},
    )


def filled(query: str, window: str) -> str:
    """``query`` with Grafana's variables replaced: everything chosen, ``window`` as the rate's interval.

    Raises:
        ValueError: if it has a variable that is not known here.
    """
    full = re.sub(r"\$(instance|task|client)\b", ".*", query).replace("$__rate_interval", window)
    if "$" in full:
        raise ValueError(f"a variable is left in {full}")
    return full


def values_of(definition: str) -> str:
    """``label_values(metric, label)``, Grafana's own, as a query of the same values."""
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition)
    if found is None:
        raise ValueError(f"no label_values(metric, label): {definition}")
    return f'count by ({found[2]}) ({found[1]}{{{found[2]}!=""}})'


def _panel(entry: Mapping[str, Any]) -> Panel:
    field, grid = entry["fieldConfig"]["defaults"], entry["gridPos"]
    steps = field.get("thresholds", {}).get("steps", [])
    return Panel(
        title=entry["title"],
        kind=entry["type"],
        unit=field["unit"],
        grid=(grid["x"], grid["y"], grid["w"], grid["h"]),
        queries=tuple((target["legendFormat"], target["expr"]) for target in entry["targets"]),
        stacked=field.get("custom", {}).get("stacking", {}).get("mode") == "normal",
        limit=steps[-1]["value"] if steps else None,
    )
