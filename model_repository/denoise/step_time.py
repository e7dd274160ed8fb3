"""How long a UNet call takes, learned from the calls made: seconds = a + b × rows for each latent shape.

Least squares with exponential forgetting, by calls and by idle time, so that it follows a machine that slows down and
one that is fast again. What was measured a while ago tells nobody no: a request that an old estimate refused would
never be measured, and the estimate never be mended. Nor does a single call, for the first of a shape is slow: caches
are cold, and some engines compile.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

FORGET = 0.98
"""What a call leaves of the weight of those before."""

IDLE_SECONDS = 3.0
"""Idle time that leaves 1/e of it."""

FRESH_SECONDS = 1.0
"""Age, at least, up to which an estimate may refuse; a call's own time, twice, where that is longer."""

SURE = 2.0
"""Weight of the calls, each 1 when it is made, that an estimate needs to end a job: three in a row."""

ROWS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Counts of rows between which the metrics tell calls apart."""


def rows_label(rows: int) -> str:
    """The least of ``ROWS`` that holds ``rows``: calls of equal labels are compared with one another."""
    at = bisect.bisect_left(ROWS, rows)
    return str(ROWS[at]) if at < len(ROWS) else "more"


@dataclass
class _Fit:
    """Weighted sums over (rows, seconds)."""

    n: float = 0.0
    rows: float = 0.0
    rows2: float = 0.0
    seconds: float = 0.0
    product: float = 0.0
    ended: float = 0.0

    def add(self, rows: int, seconds: float, ended: float) -> None:
        """One call, which ended then; what was before counts a little less."""
        idle = max(0.0, ended - seconds - self.ended) if self.n else 0.0
        kept = FORGET * math.exp(-idle / IDLE_SECONDS)
        self.n = kept * self.n + 1
        self.rows = kept * self.rows + rows
        self.rows2 = kept * self.rows2 + rows * rows
        self.seconds = kept * self.seconds + seconds
        self.product = kept * self.product + rows * seconds
        self.ended = ended

    @property
    def line(self) -> tuple[float, float]:
        """(a, b), both at least 0. With one row count seen, time is taken as proportional to rows."""
        spread = self.n * self.rows2 - self.rows**2
        if spread <= 1e-9 * self.n * self.rows2:
            return 0.0, self.seconds / self.rows
        slope = (self.n * self.product - self.rows * self.seconds) / spread
        slope = min(max(slope, 0.0), self.seconds / self.rows)
        return (self.seconds - slope * self.rows) / self.n, slope


@dataclass
class StepTime:
    """The estimates of all latent shapes (C, h, w). A shape not seen yet borrows from a seen one, by area."""

    _fits: dict[tuple[int, ...], _Fit] = field(default_factory=dict)

    def observe(self, shape: tuple[int, ...], rows: int, seconds: float, ended: float) -> None:
        """A call of ``rows`` rows took ``seconds``; it ended at ``ended``, in seconds of any clock."""
        self._fits.setdefault(shape, _Fit()).add(rows, seconds, ended)

    def sure(self, shape: tuple[int, ...]) -> bool:
        """Whether the estimate of a shape rests on enough calls to end a job; a borrowed one never does."""
        return shape in self._fits and self._fits[shape].n >= SURE

    def fresh(self, shape: tuple[int, ...], rows: int, now: float) -> bool:
        """Whether the estimate is recent enough to refuse something."""
        latest = max((fit.ended for fit in self._fits.values()), default=-math.inf)
        return now - latest <= max(FRESH_SECONDS, 2 * self.seconds(shape, rows))

    def line(self, shape: tuple[int, ...]) -> tuple[float, float] | None:
        """(a, b) of seconds = a + b × rows; None before any call."""
        if shape in self._fits:
            return self._fits[shape].line
        if not self._fits:
            return None
        known, fit = next(iter(self._fits.items()))
        a, b = fit.line
        ratio = (shape[-2] * shape[-1]) / (known[-2] * known[-1])
        return a * ratio, b * ratio

    def least(self) -> float:
        """The least seconds of a call of one row for each latent (h × w), over all shapes; 0 before any call."""
        per_latent = [sum(fit.line) / (shape[-2] * shape[-1]) for shape, fit in self._fits.items()]
        return min(per_latent, default=0.0)

    def seconds(self, shape: tuple[int, ...], rows: int) -> float:
        """The estimate for a call of ``rows`` rows; 0 before any call."""
        line = self.line(shape)
        return 0.0 if line is None else line[0] + line[1] * rows
