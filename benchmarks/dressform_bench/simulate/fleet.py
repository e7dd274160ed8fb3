"""What fleets of servers do under load, in figures: one row for each, and how many servers a rate needs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dressform_bench.goodput import summary
from dressform_bench.schedule import MIX, Kind, capacity, poisson
from dressform_bench.simulate.events import simulated
from dressform_bench.simulate.server import Limits
from dressform_bench.simulate.step_times import StepTimes

MOST = 256
"""Servers that are tried, at most."""

MOST_REQUESTS = 1_000_000
"""In one row."""

_FIGURES = ("offered_per_s", "goodput_per_s", "share_within_slo", "p50_s", "p95_s", "p99_s", "mean_batch", "refused")


@dataclass(frozen=True)
class Study:
    """All that fleets have in common: their servers, and the requests of ``MIX`` that arrive independently.

    The SLO of a request is ``slo`` × its kind's solo time, kept where it is for a share ``kept`` of them. A row holds
    arrivals of at least ``seconds``, and of as long as it takes for ``requests`` to come.
    """

    times: StepTimes
    limits: Limits
    batching: str
    slo: float
    kept: float
    seconds: float
    requests: int
    seed: int

    @cached_property
    def solo(self) -> dict[Kind, float]:
        """Seconds of each kind alone on a server."""
        return {kind: self.times.solo(kind) for kind in MIX}

    @cached_property
    def capacity(self) -> float:
        """Requests per second of a server that takes one at a time."""
        return capacity(self.solo)

    def row(self, servers: int, routing: str, rate: float) -> dict[str, Any]:
        """The figures of ``servers`` at ``rate`` requests per second."""
        seconds = max(self.seconds, self.requests / rate)
        arrivals = poisson(rate, seconds, MIX, self.seed, MOST_REQUESTS)
        outcomes = simulated(arrivals, self.times, self.limits, servers, routing, self.batching)
        figures = summary(outcomes, self.solo, self.slo, seconds)
        return {"servers": servers, "routing": routing, "rate_per_s": round(rate, 4)} | {
            k: figures[k] for k in _FIGURES
        }

    def needed(self, rate: float, routing: str) -> dict[str, Any]:
        """The fewest servers, up to `MOST`, that keep the SLO at ``rate`` requests per second; None: more than those.

        They are found by bisection: a fleet that is larger is taken to be no worse.
        """

        def kept(servers: int) -> bool:
            return bool((self.row(servers, routing, rate)["share_within_slo"] or 0) >= self.kept)

        failed, enough = 0, min(MOST, math.ceil(rate / self.capacity))
        while not kept(enough):
            failed = enough
            if failed == MOST:
                return {"rate_per_s": round(rate, 4), "servers": None, "routing": routing}
            enough = min(MOST, 2 * enough)
        while enough - failed > 1:
            middle = (failed + enough) // 2
            failed, enough = (failed, middle) if kept(middle) else (middle, enough)
        return {"rate_per_s": round(rate, 4), "servers": enough, "routing": routing}
