"""What the job table says of a request, in words: slots, states, progress, and the health of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, SupportsInt

State = Literal["preparing", "waiting", "running", "decoding", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("preparing", "waiting", "running", "decoding", "done", "failed", "cancelled")
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

_FIRST_LEASE_MS, _SHORTEST_LEASE_MS, _LEASE_STEPS = 120_000, 15_000, 100


class IdInUse(Exception):
    """A request with this id is in flight."""


class TableFull(Exception):
    """As many requests are in flight as are allowed."""


@dataclass(frozen=True)
class Slot:
    """A claim: slot ``number`` for as long as its generation is ``generation``."""

    number: int
    generation: int

    @classmethod
    def of(cls, values: Sequence[SupportsInt]) -> Slot:
        """From the tensor ``slot``, int64 [2]."""
        number, generation = values
        return cls(int(number), int(generation))


@dataclass(frozen=True)
class Progress:
    """Where a job stands: ``position`` in the queue (0: none before it), ``eta_ms`` to its last step (-1: unknown)."""

    state: State
    step: int = 0
    total: int = 0
    position: int = 0
    eta_ms: int = -1

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"a job's state is one of {', '.join(STATES)}, not {self.state!r}")

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED


@dataclass(frozen=True)
class Entry:
    """A slot as a reader sees it. ``name`` is the id's first 8 characters; times are of the monotonic clock, in ns."""

    slot: Slot
    name: str
    task: str
    rows: int
    claimed_ns: int
    written_ns: int
    expires_ns: int
    cancelled: bool
    progress: Progress


@dataclass(frozen=True)
class Health:
    """What ``denoise`` last said: when (monotonic, ns), the estimated work before it, its step time, its jobs.

    ``latent_us`` is the least time that a UNet call of one row has taken for each of its latents (h × w): with it, the
    time that a request needs at the very least can be told before any work is done.
    """

    beat_ns: int
    work_ms: int
    step_ms: float
    jobs: int
    latent_us: float


@dataclass(frozen=True)
class Member:
    """A process of the server: stage or graph, its id, its start in the kernel's ticks, last beat (monotonic, ns).

    ``call_ns`` is when the call of Triton's that it is at began; 0: it is at none.
    """

    name: str
    pid: int
    started: int
    beat_ns: int
    call_ns: int


def lease_ms(step_ms: float) -> int:
    """How long a stage may be silent about a job, given the time of a step (0: not measured yet)."""
    return _FIRST_LEASE_MS if step_ms <= 0 else int(_SHORTEST_LEASE_MS + _LEASE_STEPS * step_ms)
