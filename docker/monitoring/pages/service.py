"""What visitors get."""

from __future__ import annotations

from pages.panel import Dashboard, Panel, Row
from pages.query import CLIENT, SERVER, TASK, quantiles, rate

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
                    "Of the last hour's requests due an answer, those answered within 20 s: 99 % is the level.",
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
                    {"requests": rate("dressform_requests_ended_total")},
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
                    {"{{outcome}}": rate("dressform_requests_total", "outcome", CLIENT)},
                    stacked=True,
                ),
                Panel(
                    "Whole requests",
                    "From arrival to the answer, of requests that were done.",
                    "s",
                    quantiles("dressform_request_seconds", TASK),
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
                    {"{{client}}": rate("dressform_requests_total", "client", CLIENT)},
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Requests by task and category",
                    "Try-ons by what the garment covers.",
                    "reqps",
                    {"{{task}} {{category}}": rate("dressform_requests_total", "task, category", CLIENT)},
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Requests by size",
                    "Height × width at which it was painted.",
                    "reqps",
                    {"{{size}}": rate("dressform_requests_total", "size", CLIENT)},
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Denoiser's time by client",
                    "Share of the denoisers' time that each client's rows took: 1 is one server, all of the time.",
                    "percentunit",
                    {"{{client}}": rate("dressform_compute_seconds_total", "client", CLIENT)},
                    width=6,
                    stacked=True,
                ),
            ),
        ),
    ),
)
