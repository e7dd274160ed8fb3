"""How long a UNet call takes, learned from the calls made: seconds = a + b × rows for each latent shape.

Least squares with exponential forgetting, so that it follows a machine that slows down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FORGET = 0.98


@dataclass
class _Fit:
    """Weighted sums over (rows, seconds)."""

    n: float = 0.0
    rows: float = 0.0
    rows2: float = 0.0
    seconds: float = 0.0
    product: float = 0.0

    def add(self, rows: int, seconds: float) -> None:
        """One call; what was before counts a little less."""
        self.n = FORGET * self.n + 1
        self.rows = FORGET * self.rows + rows
        self.rows2 = FORGET * self.rows2 + rows * rows
        self.seconds = FORGET * self.seconds + seconds
        self.product = FORGET * self.product + rows * seconds

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

    def observe(self, shape: tuple[int, ...], rows: int, seconds: float) -> None:
        """A call of ``rows`` rows took ``seconds``."""
        self._fits.setdefault(shape, _Fit()).add(rows, seconds)

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
