"""When requests arrive, and what each asks for: pure, and the same for the same seed."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dressform.options import Solver


@dataclass(frozen=True)
class Kind:
    """One class of request; ``weight`` is its share of all, relative to the others."""

    steps: int
    solver: Solver
    guidance_scale: float
    weight: float

    def __post_init__(self) -> None:
        if self.steps < 1 or self.weight <= 0:
            raise ValueError(f"steps must be at least 1 and weight above 0, not {self.steps} and {self.weight}")

    @property
    def name(self) -> str:
        """As in ``20 unipc 7.5``."""
        return f"{self.steps} {self.solver} {self.guidance_scale:g}"


MIX = (
    Kind(4, "lcm", 1.0, 30),
    Kind(8, "dpmpp_2m_karras", 5.0, 25),
    Kind(8, "euler_ancestral", 1.0, 10),
    Kind(20, "unipc", 7.5, 15),
    Kind(20, "euler", 2.5, 10),
    Kind(50, "ddim", 7.5, 10),
)
"""Previews, drafts, pictures, and a few who want the best."""


def mix_of(steps: Sequence[int] | None) -> tuple[Kind, ...]:
    """Guided requests of these numbers of steps, equally many of each; `MIX` for None."""
    return MIX if steps is None else tuple(Kind(count, "ddim", 7.5, 1) for count in dict.fromkeys(steps))


@dataclass(frozen=True)
class Arrival:
    """A request of ``kind`` that is due ``at`` seconds after the schedule's start."""

    at: float
    kind: Kind
    seed: int


Schedule = Callable[[float, float, Sequence[Kind], int], tuple[Arrival, ...]]
"""Arrivals at a mean rate (1/s) for some seconds, of a mix of kinds, for a seed."""

MOST = 10_000
"""Arrivals of one schedule."""


def poisson(rate: float, seconds: float, mix: Sequence[Kind], seed: int, limit: int = MOST) -> tuple[Arrival, ...]:
    """Arrivals at ``rate`` per second on average, independent of one another, for ``seconds``.

    The same ``seed`` at another rate gives the same requests in the same order, closer together or further apart.

    Raises:
        ValueError: if a rate or duration is not positive, or there would be more than ``limit`` arrivals.
    """
    return _timed(lambda count: count / rate, rate, seconds, mix, seed, limit)


def ramp(rate: float, seconds: float, mix: Sequence[Kind], seed: int, limit: int = MOST) -> tuple[Arrival, ...]:
    """As `poisson`, but the rate rises evenly from 0 to twice ``rate``, which stays the mean.

    The mean number of arrivals until t is rate · t² / seconds; its inverse carries the steps of a Poisson process of
    rate 1 over (Çinlar, Introduction to Stochastic Processes, 1975, section 4.7).
    """
    return _timed(lambda count: math.sqrt(count * seconds / rate), rate, seconds, mix, seed, limit)


def burst(
    rate: float, seconds: float, mix: Sequence[Kind], seed: int, limit: int = MOST, size: int = 8
) -> tuple[Arrival, ...]:
    """``size`` requests at the same instant, such groups as in `poisson`; ``rate`` counts the requests."""
    groups = poisson(rate / size, seconds, mix, seed, limit // size)
    generator = random.Random(f"burst {seed}")
    weights = [kind.weight for kind in mix]
    return tuple(
        Arrival(group.at, generator.choices(mix, weights)[0], generator.randrange(2**31))
        for group in groups
        for _ in range(size)
    )


def replay(times: Sequence[float]) -> Schedule:
    """Requests as they came once: ``times`` in seconds, faster or slower as the rate asks, and again from the start.

    Raises:
        ValueError: if there are fewer than two, they are not in order, or do not begin at 0 or later.
    """
    if len(times) < 2 or times[0] < 0 or any(later < earlier for earlier, later in pairwise(times)) or not times[-1]:
        raise ValueError("a trace needs two times or more, in seconds from 0 on, in order")

    def again(rate: float, seconds: float, mix: Sequence[Kind], seed: int, limit: int = MOST) -> tuple[Arrival, ...]:
        span = times[-1] * len(times) / (len(times) - 1)  # from its begin to that of its repetition
        own_rate = len(times) / span
        own = (times[i % len(times)] + span * (i // len(times)) for i in itertools.count())
        return _drawn((at * own_rate / rate for at in own), rate, seconds, mix, seed, limit)

    return again


def _timed(
    inverse: Callable[[float], float], rate: float, seconds: float, mix: Sequence[Kind], seed: int, limit: int
) -> tuple[Arrival, ...]:
    """Arrivals of a Poisson process; ``inverse`` gives the time until which a number of arrivals is expected."""
    generator = random.Random(f"times {seed}")

    def times() -> Iterator[float]:
        count = 0.0
        while True:
            count += generator.expovariate(1.0)
            yield inverse(count)

    return _drawn(times(), rate, seconds, mix, seed, limit)


def _drawn(
    times: Iterator[float], rate: float, seconds: float, mix: Sequence[Kind], seed: int, limit: int
) -> tuple[Arrival, ...]:
    """Requests at ``times``, as far as they are within ``seconds``."""
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"rate and seconds must be above 0, not {rate} and {seconds}")
    generator = random.Random(seed)
    weights = [kind.weight for kind in mix]
    arrivals: list[Arrival] = []
    for at in itertools.takewhile(lambda at: at < seconds, times):
        if len(arrivals) == limit:
            raise ValueError(f"{rate:g} requests/s for {seconds:g} s are more than the {limit} requests allowed")
        arrivals.append(Arrival(at, generator.choices(mix, weights)[0], generator.randrange(2**31)))
    return tuple(arrivals)


def capacity(solo_seconds: Mapping[Kind, float]) -> float:
    """Requests per second of a server that takes one at a time: 1 / the mix's mean solo time."""
    weight = sum(kind.weight for kind in solo_seconds)
    return weight / sum(kind.weight * seconds for kind, seconds in solo_seconds.items())
