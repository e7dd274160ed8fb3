"""The curves of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_losses(records: Sequence[dict[str, float]], path: Path) -> None:
    """Write a PNG of all losses against the step, on a logarithmic scale; ``records`` as in ``metrics.jsonl``."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [record["step"] for record in records]
    for name in [name for name in records[0] if name not in ("step", "rate", "seconds_per_step")]:
        axes.plot(steps, [record[name] for record in records], label=name)
    axes.set(xlabel="step", ylabel="mean since the last point", yscale="log", title=path.parent.name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
