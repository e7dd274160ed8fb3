"""Columns of the benchmarks that hold requests against an SLO (`goodput.summary`)."""

from __future__ import annotations

from collections.abc import Sequence

from dressform_bench.report.section import Column, percent, short


def interval(ends: Sequence[float]) -> str:
    """``92 % to 97 %``."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


WITHIN: Sequence[Column] = (
    ("within the SLO", "share_within_slo", percent),
    ("95 % interval", "share_interval", interval),
)
ANSWERED: Sequence[Column] = (
    ("goodput, requests/s", "goodput_per_s", short),
    ("p50, s", "p50_s", short),
    ("p95, s", "p95_s", short),
    ("p99, s", "p99_s", short),
)
