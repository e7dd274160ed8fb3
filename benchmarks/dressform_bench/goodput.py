"""What became of the requests, counted: goodput within an SLO, latency, batch sizes. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dressform_bench.schedule import Kind

SAME_CALL_MS = 0.01
"""Step ends that lie closer are of one UNet call: they are the same instant, rounded to a microsecond."""


@dataclass(frozen=True)
class Outcome:
    """One request; times in seconds since its schedule's start.

    ``due`` is when it was to be sent: latency counts from there, so that neither a slow server nor a slow client can
    hide. ``error`` is "" or the error's class, ``sentence`` what it said; ``info`` is the answer's.
    """

    kind: Kind
    due: float
    sent: float
    ended: float
    error: str = ""
    sentence: str = ""
    info: Mapping[str, Any] | None = None

    @property
    def latency(self) -> float:
        """Seconds from when it was due to its answer or error."""
        return self.ended - self.due


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest of ``values`` that at least ``percent`` % of them do not exceed (nearest rank); None of none."""
    if not 0 < percent <= 100:
        raise ValueError(f"percent must be above 0 and at most 100, not {percent}")
    if not values:
        return None
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def percentile_of_counts(counts: Mapping[int, int], percent: float) -> float | None:
    """`percentile` of values that came as often as ``counts`` says."""
    return percentile(list(Counter(dict(counts)).elements()), percent)


def mean_batch(infos: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean jobs of a UNet call: a call of b jobs shows up in b infos, so each counts 1/b there."""
    sizes = [size for info in infos for size in info["batch_sizes"]]
    return len(sizes) / sum(1 / size for size in sizes) if sizes else None


def summary(
    outcomes: Sequence[Outcome], solo: Mapping[Kind, float], slo_factor: float, seconds: float
) -> dict[str, Any]:
    """The figures of one mode at one rate.

    Goodput is requests answered within ``slo_factor`` × their kind's solo time, per second of the schedule. Errors and
    refusals count as not within the SLO, and have no part in the latencies, which are of answered requests alone.
    """
    answered = [one for one in outcomes if not one.error]
    within = sum(one.latency <= slo_factor * solo[one.kind] for one in answered)
    errors = Counter(one.error for one in outcomes if one.error)
    infos = [one.info for one in answered if one.info is not None]
    latencies = [one.latency for one in answered]
    return {
        "offered_per_s": _rounded(len(outcomes) / seconds),
        "offered": len(outcomes),
        "answered": len(answered),
        "refused": errors["Overloaded"],
        "failed": sum(errors.values()) - errors["Overloaded"],
        "errors": dict(errors),
        "within_slo": within,
        "goodput_per_s": _rounded(within / seconds),
        "share_within_slo": _rounded(within / len(outcomes)) if outcomes else None,
        "share_interval": [_rounded(end) for end in interval(within, len(outcomes))] if outcomes else None,
        "p50_s": _rounded(percentile(latencies, 50)),
        "p95_s": _rounded(percentile(latencies, 95)),
        "p99_s": _rounded(percentile(latencies, 99)),
        "p95_slowdown": _rounded(percentile([one.latency / solo[one.kind] for one in answered], 95)),
        "mean_batch": _rounded(mean_batch(infos)),
        "p95_send_delay_ms": _rounded(percentile([1000 * (one.sent - one.due) for one in outcomes], 95)),
    }


def interval(count: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of ``count`` in ``of`` (Wilson, JASA 22 (158), 1927)."""
    share, spread = count / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / of / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def bracket(rows: Sequence[Mapping[str, Any]], kept: float, key: str = "offered_per_s") -> tuple[float, float | None]:
    """Between what the highest rate lies that keeps the SLO, in order of load: by ``key``, the last of ``rows`` up to
    which the share within it is at least ``kept`` (0: none), and the first for which it is not (None: all keep it).
    """
    last = 0.0
    for row in sorted(rows, key=lambda row: row["load"]):
        if (row["share_within_slo"] or 0) < kept:
            return last, row[key]
        last = row[key]
    return last, None


def next_load(rows: Sequence[Mapping[str, Any]], kept: float) -> float | None:
    """The load to try next for the highest that keeps the SLO; None where all that were tried keep it."""
    last, first = bracket(rows, kept, "load")
    return None if first is None else round((last + first) / 2, 4)
