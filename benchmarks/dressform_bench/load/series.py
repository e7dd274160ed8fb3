"""What happened over time: samples of Locust's own statistics, which it merges from all its workers.

Locust rounds response times (to two digits above 100 ms), and with them these quantiles.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import WorkerRunner

from dressform_bench.goodput import percentile_of_counts
from dressform_bench.load.memory import memory

SERVER, WAITING, BATCH = "SERVER", "waiting (ms)", "batch (jobs)"
"""Type and names of our own entries in Locust's statistics."""


@dataclass
class Snapshot:
    """Statistics until a moment: answered requests by response time (ms), failures, sums of our own entries."""

    at: float
    times: Mapping[int, int] = field(default_factory=dict)
    failures: int = 0
    own: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, environment: Environment) -> Snapshot:
        """The statistics as they are."""
        stats: Any = environment.stats
        own = {name: stats.get(name, SERVER) for name in (WAITING, BATCH)}
        sums = {name: (entry.num_requests, float(entry.total_response_time)) for name, entry in own.items()}
        return cls(time.monotonic(), dict(stats.total.response_times), stats.total.num_failures, sums)

    def since(self, last: Snapshot) -> dict[str, Any]:
        """The figures of the time between ``last`` and this."""
        times = Counter(self.times)
        times.subtract(last.times)
        seconds, answered = self.at - last.at, sum(times.values())
        figures: dict[str, Any] = {
            "requests_per_second": round(answered / seconds, 3),
            "failures": self.failures - last.failures,
        }
        for percent in (50, 95, 99):
            found = percentile_of_counts(times, percent)
            figures[f"p{percent}_seconds"] = None if found is None else round(found / 1000, 3)
        for name, key in ((WAITING, "waiting_ms"), (BATCH, "batch")):
            count, total = self.own.get(name, (0, 0.0))
            count_before, total_before = last.own.get(name, (0, 0.0))
            grown = count - count_before
            figures[key] = round((total - total_before) / grown, 2) if grown else None
        return figures


def watch(environment: Environment, **_: Any) -> None:
    """Sample while users are there, and write what was measured at the end; a worker leaves that to its master."""
    if isinstance(environment.runner, WorkerRunner) or environment.runner is None:
        return
    options: Any = environment.parsed_options
    rows: list[dict[str, Any]] = []
    first = last = Snapshot(time.monotonic())

    def begin(**_: Any) -> None:
        """Locust's page starts one test after the other, each with statistics of its own: the last is told."""
        nonlocal first, last
        rows.clear()
        first = last = Snapshot(time.monotonic())

    def sample() -> None:
        nonlocal last
        while True:
            gevent.sleep(options.sample_seconds)
            users = environment.runner.user_count if environment.runner else 0
            if not users:
                continue
            now, held = Snapshot.of(environment), memory(options.server_pid)
            passed, whole = round(now.at - first.at, 1), round(sum(held.values()), 5) if held else None
            figures = {**now.since(last), "memory_gigabytes": whole, "memory_by_process": held}
            rows.append({"t": passed, "users": users, **figures})
            last = now

    greenlet = gevent.spawn(sample)

    def finish(**_: Any) -> None:
        greenlet.kill()
        if options.series:
            end = min(time.monotonic(), last.at + options.sample_seconds)  # nobody was there after that
            found = measured(environment, first, end, rows)
            Path(options.series).write_text(json.dumps(found), encoding="utf-8")

    environment.events.test_start.add_listener(begin)
    environment.events.quitting.add_listener(finish)


def measured(environment: Environment, first: Snapshot, end: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole run until ``end``: its summary, the samples, and the figures of each kind of request."""
    stats: Any = environment.stats
    whole = replace(Snapshot.of(environment), at=end).since(first)
    entries = [entry for entry in stats.entries.values() if entry.method != SERVER]
    return {
        "summary": {"requests": stats.total.num_requests, **whole},
        "series": rows,
        "by_name": [
            {
                "name": entry.name,
                "protocol": entry.method,
                "requests": entry.num_requests,
                "failures": entry.num_failures,
                "p50_seconds": _percentile(entry, 0.5),
                "p95_seconds": _percentile(entry, 0.95),
            }
            for entry in sorted(entries, key=lambda entry: (entry.method, entry.name))
        ],
        "errors": [
            {"protocol": error.method, "name": error.name, "error": str(error.error), "count": error.occurrences}
            for error in stats.errors.values()
        ],
    }


def _percentile(entry: Any, share: float) -> float | None:
    """Seconds; None where nothing was answered, of which Locust says 0."""
    return entry.get_response_time_percentile(share) / 1000 if entry.response_times else None
