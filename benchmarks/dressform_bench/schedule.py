"""When requests arrive, and what each asks for: pure, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Arrival:
    """A request of ``kind`` that is due ``at`` seconds after the schedule's start."""

    at: float
    kind: Kind
    seed: int


def poisson(rate: float, seconds: float, mix: Sequence[Kind], seed: int, limit: int = 10_000) -> tuple[Arrival, ...]:
    """Arrivals at ``rate`` per second on average, independent of one another, for ``seconds``.

    The same ``seed`` at another rate gives the same requests in the same order, closer together or further apart.

    Raises:
        ValueError: if a rate or duration is not positive, or there would be more than ``limit`` arrivals.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"rate and seconds must be above 0, not {rate} and {seconds}")
    generator = random.Random(seed)
    weights = [kind.weight for kind in mix]
    arrivals: list[Arrival] = []
    at = generator.expovariate(1.0) / rate
    while at < seconds:
        if len(arrivals) == limit:
            raise ValueError(f"{rate:g} requests/s for {seconds:g} s are more than the {limit} requests allowed")
        arrivals.append(Arrival(at, generator.choices(mix, weights)[0], generator.randrange(2**31)))
        at += generator.expovariate(1.0) / rate
    return tuple(arrivals)


def capacity(solo_seconds: dict[Kind, float]) -> float:
    """Requests per second of a server that takes one at a time: 1 / the mix's mean solo time."""
    weight = sum(kind.weight for kind in solo_seconds)
    return weight / sum(kind.weight * seconds for kind, seconds in solo_seconds.items())
