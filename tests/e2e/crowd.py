"""A request among strangers, on a server that they keep busy for as long as it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dressform import Result

CROWD = 8
"""Jobs; a step of more is a crowded one."""

ATTEMPTS = 20


def among_strangers(ask: Callable[[], Result], strangers: Sequence[Callable[[], Result]]) -> list[Result]:
    """What ``ask`` gave beside the strangers, who come again as they leave.

    The first result's request arrives with them, every other one joins them in their midst: at least one does, and the
    last has been in a crowd.
    """
    stop = threading.Event()

    def come_again(stranger: Callable[[], Result]) -> None:
        while not stop.is_set():
            stranger()

    results = []
    with ThreadPoolExecutor(len(strangers)) as pool:
        coming = [pool.submit(come_again, stranger) for stranger in strangers]
        try:
            while len(results) < ATTEMPTS and (len(results) < 2 or largest_batch(results[-1]) <= CROWD):
                results.append(ask())
        finally:
            stop.set()
    for future in coming:
        future.result()
    assert largest_batch(results[-1]) > CROWD, f"batches of {[largest_batch(result) for result in results]} jobs"
    return results


def largest_batch(result: Result) -> int:
    """The most jobs that one of the result's steps had."""
    return max(result.info["batch_sizes"])
