"""A dashboard as the JSON that Grafana reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pages.panel import Dashboard, Kind, Panel, Row
from pages.query import SERVER

Json = dict[str, Any]

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def document(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana reads it."""
    return {
        "uid": f"dressform-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["dressform"],
        "schemaVersion": 39,
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one crosshair on all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "title": "Dressform", "tags": ["dressform"], "asDropdown": False}],
        "templating": {"list": [_datasource(), *(_variable(*item) for item in dashboard.variables.items())]},
        "annotations": {"list": _annotations()},
        "panels": list(_panels(dashboard.rows)),
    }


def written(dashboard: Dashboard) -> str:
    """The text of the dashboard's file."""
    return json.dumps(document(dashboard), indent=1, ensure_ascii=False) + "\n"


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(label: str, metric: str) -> Json:
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _annotations() -> list[Json]:
    def marks(name: str, colour: str, expr: str, text: str, at_value: bool) -> Json:
        return {
            "name": name,
            "datasource": DATASOURCE,
            "enable": True,
            "iconColor": colour,
            "expr": expr,
            "titleFormat": name,
            "textFormat": text,
            "useValueForTime": at_value,
        }

    starts, firing = (
        f"dressform_start_time_seconds{{{SERVER}}} * 1000",
        'ALERTS{alertname=~"Dressform.*", alertstate="firing"}',
    )
    return [
        marks("Starts", "blue", starts, "{{instance}}", at_value=True),
        marks("Alerts", "red", firing, "{{alertname}} {{instance}}", at_value=False),
    ]


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    identity, top = 0, 0
    for row in rows:
        identity += 1
        heading: Json = {
            "id": identity,
            "type": "row",
            "title": row.title,
            "collapsed": row.collapsed,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        top, left, inside = top + 1, 0, []
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left = top + panel.height, 0
            identity += 1
            inside.append(_panel(identity, panel, left, top))
            left += panel.width
        top += row.panels[-1].height
        if row.collapsed:
            yield heading | {"panels": inside}
        else:
            yield heading
            yield from inside


def _panel(identity: int, panel: Panel, left: int, top: int) -> Json:
    return {
        "id": identity,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": DATASOURCE,
                "expr": query,
                "legendFormat": legend,
                **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
            }
            for i, (legend, query) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }


def _field(panel: Panel) -> Json:
    field: Json = {"unit": panel.unit}
    if panel.kind != "heatmap":
        field["min"] = 0
    if panel.limit is not None:
        high = {"color": "green" if panel.limit < 1 else "red", "value": panel.limit}
        field["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": "red" if panel.limit < 1 else "green", "value": None}, high],
        }
    if panel.kind == "timeseries":
        field["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if panel.limit is None else "dashed"},
            "spanNulls": False,
        }
    return field


_OPTIONS: dict[Kind, Json] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "rowsFrame": {"layout": "auto"},
        "cellGap": 1,
        "yAxis": {"axisPlacement": "left"},
        "tooltip": {"mode": "single", "yHistogram": False},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "auto",
    },
}
