"""Requests at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def together(count: int, call: Callable[[int], T]) -> list[T]:
    """What ``call`` returned for 0, 1, … ``count`` - 1, all of them called at once."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))
