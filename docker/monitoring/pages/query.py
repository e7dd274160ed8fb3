"""Queries that more than one panel asks."""

from __future__ import annotations

from collections.abc import Sequence

SERVER = 'instance=~"$instance"'
TASK = f'{SERVER}, task=~"$task"'
CLIENT = f'{TASK}, client=~"$client"'
GRAPHS = f'{SERVER}, model=~"text_encoder|vae_encoder|unet|vae_decoder|parser|safety_checker"'
INNER = f'{SERVER}, model!~"inpaint|tryon|mask|jobs|watch"'
RATE = "[$__rate_interval]"


def rate(name: str, by: str = "", labels: str = SERVER) -> str:
    """The sum of a counter's rate."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{labels}}}{RATE}))"


def quantiles(name: str, labels: str = SERVER, of: Sequence[float] = (0.5, 0.95, 0.99)) -> dict[str, str]:
    """Quantiles of a histogram, by legend."""
    return {f"p{100 * q:.0f}": f"histogram_quantile({q}, {rate(f'{name}_bucket', 'le', labels)})" for q in of}


def mean(name: str, by: str = "", labels: str = SERVER) -> str:
    """A histogram's mean."""
    return f"{rate(f'{name}_sum', by, labels)} / {rate(f'{name}_count', by, labels)}"


def per_model(total: str, count: str, labels: str) -> str:
    """Microseconds of Triton's counter ``total``, in seconds for each of ``count``."""
    return f"{rate(total, 'model', labels)} / 1e6 / ({rate(count, 'model', labels)} > 0)"
