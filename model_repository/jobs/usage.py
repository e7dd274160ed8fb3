"""What is counted and written down of each request that is over. No Triton here."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Protocol

from jobs.ledger import OUTCOMES, Account

MOST_CLIENTS, MOST_SIZES, MOST_SERIES = 100, 50, 2000
"""Distinct clients, sizes, and combinations of labels; later ones are counted as ``other``, so that no caller can fill
Prometheus."""
UNNAMED, OTHER = "unnamed", "other"


class Meter(Protocol):
    """Counters and histograms, by name."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add to a histogram."""

    def declare(self, name: str, **labels: str) -> None:
        """Show one of them as long as it is nothing."""


class Label:
    """The values of one label, ``most`` of them at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """``value``, or ``other``."""
        if value not in self._known and len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value


class Usage:
    """Counts requests on ``meter``."""

    def __init__(self, meter: Meter, tasks: Collection[str] = ()) -> None:
        """``tasks`` are shown before they have a request."""
        self._meter = meter
        self._clients, self._sizes = Label(MOST_CLIENTS), Label(MOST_SIZES)
        self._series: set[tuple[str, ...]] = set()
        for task in tasks:
            meter.declare("dressform_request_seconds", task=task)
            for outcome in OUTCOMES:
                meter.declare("dressform_requests_ended_total", task=task, outcome=outcome)

    def count(self, account: Account) -> None:
        """A request that is over."""
        client, size = self._clients.of(account.client or UNNAMED), self._sizes.of(account.size)
        task, category, outcome = account.task, account.category, account.outcome
        if (task, category, size, outcome, client) not in self._series and len(self._series) >= MOST_SERIES:
            client = size = OTHER
        self._series.add((task, category, size, outcome, client))
        self._meter.count("dressform_requests_ended_total", 1, task=task, outcome=outcome)
        told = {"task": task, "category": category, "size": size, "outcome": outcome, "client": client}
        self._meter.count("dressform_requests_total", 1, **told)
        self._meter.count("dressform_compute_seconds_total", account.compute_seconds, task=task, client=client)
        if account.outcome == "done":
            self._meter.observe("dressform_request_seconds", account.seconds, task=task)
            for stage, (begin, end) in account.spans().items():
                self._meter.observe("dressform_stage_seconds", (end - begin) / 1e9, stage=stage)


def facts(account: Account) -> dict[str, Any]:
    """What the audit log says of a request; times in milliseconds."""
    spans = {stage: round((end - begin) / 1e6, 3) for stage, (begin, end) in account.spans().items()}
    return {
        "id": account.id,
        "task": account.task,
        "category": account.category,
        "size": account.size,
        "client": account.client,
        "outcome": account.outcome,
        "code": account.code,
        "steps": account.steps,
        "unet_rows": account.unet_rows,
        "compute_ms": round(1e3 * account.compute_seconds, 3),
        "milliseconds": {**spans, "total": round(1e3 * account.seconds, 3)},
    }


def log_line(account: Account) -> str:
    """What the server's log says of it, as ``name=value`` (logfmt).

    Of the id no sign that could end the value.
    """
    known = {
        "id": re.sub(r"[^\w.-]", "?", account.short_id, flags=re.ASCII),
        "task": account.task,
        "client": account.client,
        "outcome": account.outcome,
        "code": account.code,
        "ms": f"{1e3 * account.seconds:.3f}",
    }
    return "request " + " ".join(f"{name}={value}" for name, value in known.items() if value)
