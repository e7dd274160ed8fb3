"""What fleets of servers do under load, in figures: one row for each, and how many servers a rate needs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median_high
from typing import Any

from dressform_bench.goodput import summary
from dressform_bench.schedule import Kind, capacity, poisson
from dressform_bench.simulate.events import simulated
from dressform_bench.simulate.server import Limits
from dressform_bench.simulate.step_times import StepTimes

MOST = 256
"""Servers that are tried, at most."""

MOST_REQUESTS = 1_000_000
"""Of one seed, in one row."""

_FIGURES = (
    *("offered_per_s", "goodput_per_s", "share_within_slo", "share_interval"),
    *("p50_s", "p95_s", "p99_s", "mean_batch", "refused"),
)


@dataclass(frozen=True)
class Study:
    """All that fleets have in common: their servers, and the requests of a mix that arrive independently.

    The SLO of a request is ``slo`` × its kind's solo time, kept where it is for a share ``kept`` of them. Arrivals are
    drawn anew for each of the ``seeds``, and last at least ``seconds``, and as long as it takes for ``requests``.
    """

    times: StepTimes
    limits: Limits
    mix: Sequence[Kind]
    batching: str
    slo: float
    kept: float
    seconds: float
    requests: int
    seeds: Sequence[int]

    @cached_property
    def solo(self) -> dict[Kind, float]:
        """Seconds of each kind alone on a server."""
        return {kind: self.times.solo(kind) for kind in self.mix}

    @cached_property
    def capacity(self) -> float:
        """Requests per second of a server that takes one at a time."""
        return capacity(self.solo)

    def row(self, servers: int, routing: str, rate: float, seeds: Sequence[int] = ()) -> dict[str, Any]:
        """The figures of ``servers`` at ``rate`` requests per second, with the arrivals of all ``seeds`` together."""
        seeds = seeds or self.seeds
        seconds = max(self.seconds, self.requests / rate)
        outcomes = [
            one
            for seed in seeds
            for one in simulated(
                poisson(rate, seconds, self.mix, seed, MOST_REQUESTS),
                *(self.times, self.limits, servers, routing, self.batching),
            )
        ]
        figures = summary(outcomes, self.solo, self.slo, seconds * len(seeds))
        told = {key: figures[key] for key in _FIGURES}
        return {"servers": servers, "routing": routing, "rate_per_s": round(rate, 4), **told}

    def needed(self, rate: float, routing: str) -> dict[str, Any]:
        """How many servers keep the SLO at ``rate`` requests per second: the median of what the seeds say, the fewest
        and the most (None: more than `MOST`); and what that many servers (or `MOST`) make of all arrivals.
        """
        counts = sorted(self.fewest(rate, routing, seed) for seed in self.seeds)
        low, middle, high = (count if count <= MOST else None for count in (counts[0], median_high(counts), counts[-1]))
        found = self.row(middle or MOST, routing, rate)
        told = {
            key: found[key] for key in ("rate_per_s", "routing", "offered_per_s", "share_within_slo", "share_interval")
        }
        return {**told, "servers": middle, "servers_range": [low, high]}

    def fewest(self, rate: float, routing: str, seed: int) -> int:
        """The fewest servers that keep the SLO for the arrivals of ``seed``; `MOST` + 1: more than are tried.

        They are found by bisection: a fleet that is larger is taken to be no worse.
        """

        def kept(servers: int) -> bool:
            return bool((self.row(servers, routing, rate, [seed])["share_within_slo"] or 0) >= self.kept)

        failed, enough = 0, min(MOST, math.ceil(rate / self.capacity))
        while not kept(enough):
            failed = enough
            if failed == MOST:
                return MOST + 1
            enough = min(MOST, 2 * enough)
        while enough - failed > 1:
            middle = (failed + enough) // 2
            failed, enough = (failed, middle) if kept(middle) else (middle, enough)
        return enough
