"""Waiting for what a server does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LONG: dict[str, Any] = {"num_inference_steps": 150, "num_images": 4, "height": 384, "width": 384}
"""Options of a request that the tiny model needs half a minute for: one that is not meant to end."""


def wait_until(holds: Callable[[], object], seconds: float) -> None:
    """Return when ``holds()`` does; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
