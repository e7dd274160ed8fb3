"""Grafana's dashboards: ``python docker/monitoring/make_dashboards.py`` writes ``dashboards/*.json`` beside this file.

Grafana is given the JSON; this is where it is edited. A unit test says when the two differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["timeseries", "heatmap", "stat"]
Json = dict[str, Any]

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ALL_TASKS = 'instance=~"$instance", task=~"$task"'
SERVER = 'instance=~"$instance"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """A panel: what it answers, its unit (Grafana's name), its queries by legend, and how it is drawn.

    ``width`` is in columns of 24, ``limit`` a value worth a line (the service level's, say).
    """

    title: str
    about: str
    unit: str
    queries: dict[str, str]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    limit: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a heading, from left to right; a ``collapsed`` one is opened by whoever needs it."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Dashboard:
    """A page of rows, with its variables: the label's name by the metric that has it."""

    name: str
    title: str
    about: str
    variables: dict[str, str]
    rows: tuple[Row, ...]


def rate(name: str, by: str = "", labels: str = SERVER) -> str:
    """The sum of a counter's rate."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{labels}}}{RATE}))"


def quantiles(name: str, labels: str = SERVER, of: Sequence[float] = (0.5, 0.95, 0.99)) -> dict[str, str]:
    """Quantiles of a histogram, by legend."""
    return {f"p{100 * q:.0f}": f"histogram_quantile({q}, {rate(f'{name}_bucket', 'le', labels)})" for q in of}


def mean(name: str, by: str = "", labels: str = SERVER) -> str:
    """A histogram's mean."""
    return f"{rate(f'{name}_sum', by, labels)} / {rate(f'{name}_count', by, labels)}"


def per_model(total: str, count: str) -> str:
    """Microseconds of Triton's counter ``total``, in seconds for each of ``count``."""
    return f"{rate(total, 'model')} / 1e6 / ({rate(count, 'model')} > 0)"


SERVICE = Dashboard(
    "service",
    "Dressform: service",
    "What visitors get: how many requests, how fast, how many not. The service level is 99 % answered within 20 s.",
    {"instance": "dressform_work_seconds", "task": "dressform_requests_total", "client": "dressform_requests_total"},
    (
        Row(
            "Now",
            (
                Panel(
                    "Answered in time",
                    "Of the last hour's requests that were due an answer, those answered within 20 s; the level is 99 %.",
                    "percentunit",
                    {"in time": "1 - dressform:slo_errors:ratio_rate1h"},
                    kind="stat",
                    width=4,
                    height=4,
                    limit=0.99,
                ),
                Panel(
                    "Requests",
                    "Requests that ended, however they did.",
                    "reqps",
                    {"requests": rate("dressform_requests_total")},
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "p95",
                    "95 of 100 requests were answered within this time.",
                    "s",
                    quantiles("dressform_request_seconds", of=(0.95,)),
                    kind="stat",
                    width=4,
                    height=4,
                    limit=20,
                ),
                Panel(
                    "Backlog",
                    "Work before the fullest server, in seconds of its own time.",
                    "s",
                    {"work": f"max(dressform_work_seconds{{{SERVER}}})"},
                    kind="stat",
                    width=4,
                    height=4,
                    limit=20,
                ),
                Panel(
                    "Jobs in flight",
                    "Jobs in the denoisers.",
                    "short",
                    {"jobs": f"sum(dressform_jobs{{{SERVER}}})"},
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Servers up",
                    "Servers that answer Prometheus.",
                    "short",
                    {"up": f'sum(up{{job="dressform", {SERVER}}})'},
                    kind="stat",
                    width=4,
                    height=4,
                ),
            ),
        ),
        Row(
            "Service level",
            (
                Panel(
                    "Requests by outcome",
                    "Refused: not taken on. Cancelled: by the sender. Failed: by us.",
                    "reqps",
                    {"{{outcome}}": rate("dressform_requests_total", "outcome", f'{ALL_TASKS}, client=~"$client"')},
                    stacked=True,
                ),
                Panel(
                    "Whole requests",
                    "From arrival to the answer, of requests that were done.",
                    "s",
                    quantiles("dressform_request_seconds", ALL_TASKS),
                    limit=20,
                ),
                Panel(
                    "Error budget burn",
                    "1 spends the month's budget in a month. Above 14.4 over an hour and above 6 over six hours call.",
                    "short",
                    {window: f"dressform:slo_errors:ratio_rate{window} / 0.01" for window in ("5m", "1h", "6h")},
                    limit=14.4,
                ),
                Panel(
                    "Backlog by server",
                    "Work before each server in seconds of its own time; scale by this.",
                    "s",
                    {"{{instance}}": f"dressform_work_seconds{{{SERVER}}}"},
                    limit=20,
                ),
                Panel(
                    "Refused, by reason",
                    "overloaded: the servers are full. The others are mostly the callers' faults.",
                    "reqps",
                    {"{{reason}}": rate("dressform_requests_refused_total", "reason")},
                    stacked=True,
                ),
                Panel(
                    "Share failed and refused",
                    "Failed: faults of ours. Full: refused because there was no room.",
                    "percentunit",
                    {
                        "failed": "dressform:failures:ratio_rate5m",
                        "full": "dressform:refused_full:ratio_rate5m",
                        "invalid": "dressform:refused_invalid:ratio_rate15m",
                    },
                ),
            ),
        ),
        Row(
            "Who uses it",
            (
                Panel(
                    "Requests by client",
                    "The services that name themselves.",
                    "reqps",
                    {"{{client}}": rate("dressform_requests_total", "client", f'{ALL_TASKS}, client=~"$client"')},
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Requests by task and category",
                    "Try-ons by what the garment covers.",
                    "reqps",
                    {
                        "{{task}} {{category}}": rate(
                            "dressform_requests_total", "task, category", f'{ALL_TASKS}, client=~"$client"'
                        )
                    },
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Requests by size",
                    "Height × width at which it was painted.",
                    "reqps",
                    {"{{size}}": rate("dressform_requests_total", "size", f'{ALL_TASKS}, client=~"$client"')},
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Denoiser's time by client",
                    "Share of the denoisers' time that each client's rows took: 1 is one server, all of the time.",
                    "percentunit",
                    {
                        "{{client}}": rate(
                            "dressform_compute_seconds_total", "client", f'{ALL_TASKS}, client=~"$client"'
                        )
                    },
                    width=6,
                    stacked=True,
                ),
            ),
        ),
    ),
)

DENOISER = Dashboard(
    "denoiser",
    "Dressform: denoiser",
    "The heart: which UNet calls it makes, how long they take, and who waits.",
    {"instance": "dressform_work_seconds"},
    (
        Row(
            "UNet calls",
            (
                Panel(
                    "Rows of a UNet call",
                    "How many calls had how many rows. High up: steps of many requests shared.",
                    "short",
                    {"{{le}}": f"sum by (le) (increase(dressform_unet_rows_bucket{{{SERVER}}}{RATE}))"},
                    kind="heatmap",
                    width=12,
                ),
                Panel(
                    "Time of a step",
                    "Of one UNet call, and what is done around it.",
                    "s",
                    quantiles("dressform_step_seconds") | {"mean": mean("dressform_step_seconds")},
                    width=12,
                ),
                Panel(
                    "Time of a step at equal rows",
                    "Slower at equal rows is the machine; more rows is the load.",
                    "s",
                    {"up to {{rows}} rows": mean("dressform_step_seconds", "rows")},
                ),
                Panel(
                    "Against its own past",
                    "Mean of the last 5 minutes over the past day's median, at equal rows. Above 1.5 a ticket.",
                    "short",
                    {
                        "{{instance}}, {{rows}} rows": f"dressform:step_seconds:mean5m{{{SERVER}}}"
                        f" / dressform:step_seconds:median1d{{{SERVER}}}"
                    },
                    limit=1.5,
                ),
                Panel(
                    "Rows",
                    "Mean rows of a call, and rows a second: the throughput.",
                    "short",
                    {
                        "rows a call": mean("dressform_unet_rows"),
                        "rows a second": rate("dressform_unet_rows_sum"),
                    },
                ),
            ),
        ),
        Row(
            "Jobs",
            (
                Panel(
                    "Jobs by state",
                    "waiting: no step yet.",
                    "short",
                    {"{{state}}": f"sum by (state) (dressform_jobs{{{SERVER}}})"},
                    stacked=True,
                ),
                Panel(
                    "Admitted and ended",
                    "Jobs that reached the denoiser, and how they left it.",
                    "ops",
                    {
                        "admitted": rate("dressform_jobs_admitted_total"),
                        "{{outcome}} {{reason}}": rate("dressform_jobs_ended_total", "outcome, reason"),
                    },
                ),
                Panel(
                    "Steps",
                    "Each job's steps counted, and the UNet calls they were made in.",
                    "ops",
                    {"steps": rate("dressform_steps_total"), "UNet calls": rate("dressform_step_seconds_count")},
                ),
                Panel(
                    "Wait for the first step",
                    "From arrival: reading, encoding, and waiting for a place.",
                    "s",
                    quantiles("dressform_time_to_first_step_seconds"),
                ),
                Panel(
                    "From arrival to the last step",
                    "What is left of a request is decoding and writing the picture.",
                    "s",
                    quantiles("dressform_job_seconds"),
                    limit=20,
                ),
                Panel(
                    "Rows saved by guidance intervals",
                    "Unconditional rows that were not run, as a share of all that would have been.",
                    "percentunit",
                    {
                        "saved": f"{rate('dressform_guidance_rows_saved_total')} / "
                        f"({rate('dressform_guidance_rows_saved_total')} + {rate('dressform_unet_rows_sum')})"
                    },
                ),
            ),
        ),
    ),
)

MACHINE = Dashboard(
    "machine",
    "Dressform: stages and machine",
    "Where time goes, model by model and stage by stage, and what the machine has left.",
    {"instance": "dressform_work_seconds"},
    (
        Row(
            "Stages of a request",
            (
                Panel(
                    "Time of a request, by stage",
                    "Mean of each stage; the sum is a mean request.",
                    "s",
                    {"{{stage}}": mean("dressform_stage_seconds", "stage")},
                    stacked=True,
                ),
                Panel(
                    "p95 of each stage",
                    "wait: for a place in the denoiser.",
                    "s",
                    {"{{stage}}": f"histogram_quantile(0.95, {rate('dressform_stage_seconds_bucket', 'le, stage')})"},
                ),
                Panel(
                    "Age of the stages' heartbeats",
                    "A stage that was not heard of for two minutes calls.",
                    "s",
                    {
                        "{{instance}} {{stage}}": f"time() - dressform_stage_beat_timestamp_seconds{{{SERVER}}}",
                    },
                    limit=120,
                ),
            ),
        ),
        Row(
            "Triton's models",
            (
                Panel(
                    "Time of an execution",
                    "Of one batch in each graph; denoise's is one round, with its UNet call inside.",
                    "s",
                    {"{{model}}": per_model("nv_inference_compute_infer_duration_us", "nv_inference_exec_count")},
                ),
                Panel(
                    "Busy",
                    "Share of the time that each graph computes; 1 is all of the time.",
                    "percentunit",
                    {
                        "{{model}}": rate(
                            "nv_inference_compute_infer_duration_us",
                            "model",
                            f'{SERVER}, model=~"text_encoder|vae_encoder|unet|vae_decoder|parser|safety_checker"',
                        )
                        + " / 1e6"
                    },
                    stacked=True,
                ),
                Panel(
                    "Time in Triton's queues",
                    "Of a request at each model, before it is executed.",
                    "s",
                    {"{{model}}": per_model("nv_inference_queue_duration_us", "nv_inference_request_success")},
                ),
                Panel(
                    "Waiting in Triton's queues",
                    "Requests at each model that wait to be executed.",
                    "short",
                    {"{{model}}": f"sum by (model) (nv_inference_pending_request_count{{{SERVER}}})"},
                ),
                Panel(
                    "Rows of an execution",
                    "Batching of the graphs.",
                    "short",
                    {
                        "{{model}}": f"{rate('nv_inference_count', 'model')} / ({rate('nv_inference_exec_count', 'model')} > 0)"
                    },
                ),
                Panel(
                    "Failures at models",
                    "What Triton counts as failed; CANCELED at denoise is a step that goes on, and is left out.",
                    "reqps",
                    {
                        "{{model}} {{reason}}": rate(
                            "nv_inference_request_failure", "model, reason", f'{SERVER}, reason!="CANCELED"'
                        )
                    },
                ),
            ),
        ),
        Row(
            "Machine",
            (
                Panel(
                    "CPU",
                    "Of the whole machine that the server runs on.",
                    "percentunit",
                    {"{{instance}}": f"nv_cpu_utilization{{{SERVER}}}"},
                ),
                Panel(
                    "Memory",
                    "Of the whole machine that the server runs on.",
                    "bytes",
                    {
                        "{{instance}} used": f"nv_cpu_memory_used_bytes{{{SERVER}}}",
                        "{{instance}} total": f"nv_cpu_memory_total_bytes{{{SERVER}}}",
                    },
                ),
                Panel(
                    "Up for",
                    "Since the server started; a fall is a restart.",
                    "s",
                    {"{{instance}}": f"time() - dressform_start_time_seconds{{{SERVER}}}"},
                ),
            ),
        ),
        Row(
            "GPU",
            (
                Panel(
                    "GPU",
                    "Share of the time that a kernel ran.",
                    "percentunit",
                    {"{{instance}} {{gpu_uuid}}": f"nv_gpu_utilization{{{SERVER}}}"},
                ),
                Panel(
                    "GPU memory",
                    "The UNet's activations grow with max_rows.",
                    "bytes",
                    {
                        "{{instance}} used": f"nv_gpu_memory_used_bytes{{{SERVER}}}",
                        "{{instance}} total": f"nv_gpu_memory_total_bytes{{{SERVER}}}",
                    },
                ),
                Panel(
                    "GPU power",
                    "At its limit the card slows down.",
                    "watt",
                    {
                        "{{instance}}": f"nv_gpu_power_usage{{{SERVER}}}",
                        "{{instance}} limit": f"nv_gpu_power_limit{{{SERVER}}}",
                    },
                ),
            ),
            collapsed=True,
        ),
    ),
)

DASHBOARDS = (SERVICE, DENOISER, MACHINE)


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


def main() -> None:
    """Write the dashboards."""
    folder = Path(__file__).parent / "dashboards"
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.name}.json").write_text(written(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
