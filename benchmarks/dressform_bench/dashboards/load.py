"""A shop's day in minutes: visitors who come, crowd and leave; some give up, some send what is not allowed."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from dressform import Cancelled, Client, DressformError
from dressform_export.demo.wardrobe import HELD_OUT, sample

CLIENTS = ("web", "app", "kiosk")
CATEGORIES: tuple[Literal["upper", "lower", "overall"], ...] = ("upper", "lower", "overall")
DAY = ((0.3, 0.15), (0.25, 0.5), (0.2, 1.0), (0.25, 0.2))
"""Share of the time, and of the visitors who are there in it."""

BREATH_SECONDS = 2.0
"""What a visitor waits after an error."""

Visit = Callable[[Client, int], object]


def day(url: str, seconds: float, visitors: int) -> Counter[str]:
    """Load on the server at ``url`` (gRPC); how many requests ended how: ``done``, or the error's name."""
    ended: Counter[str] = Counter()
    for share, crowd in DAY:
        with _crowd(url, max(1, round(crowd * visitors)), ended):
            time.sleep(share * seconds)
    return ended


@contextmanager
def _crowd(url: str, size: int, ended: Counter[str]) -> Iterator[None]:
    leaving = threading.Event()
    threads = [threading.Thread(target=_visitor, args=(url, number, leaving, ended)) for number in range(size)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        leaving.set()
        for thread in threads:
            thread.join()


def _visitor(url: str, number: int, leaving: threading.Event, ended: Counter[str]) -> None:
    headers = {"dressform-client": CLIENTS[number % len(CLIENTS)]}
    with Client(url, timeout=300, retries=0, headers=headers) as client:
        for turn in itertools.count():
            if leaving.is_set():
                return
            try:
                _VISITS[(number + 3 * turn) % len(_VISITS)](client, HELD_OUT + 100 * number + turn)
                ended["done"] += 1
            except DressformError as error:
                ended[type(error).__name__] += 1
                leaving.wait(BREATH_SECONDS)


def _tryon(client: Client, seed: int) -> None:
    drawn = sample(seed, CATEGORIES[seed % 3])
    client.tryon(drawn.other_look.image, drawn.flat.image, category=CATEGORIES[seed % 3], seed=seed)


def _edit(client: Client, seed: int) -> None:
    drawn = sample(seed, "upper")
    mask = client.mask(drawn.other_look.image, category="upper").mask_used
    client.inpaint(drawn.other_look.image, mask, "a red t-shirt", guidance_end=0.5, height=192, width=144, seed=seed)


def _give_up(client: Client, seed: int) -> None:
    drawn = sample(seed, "upper")
    handle = client.submit_tryon(drawn.other_look.image, drawn.flat.image, num_inference_steps=50, seed=seed)
    time.sleep(1)
    handle.cancel()
    try:
        handle.result()
    except Cancelled:
        return


def _mistake(client: Client, seed: int) -> None:
    drawn = sample(seed, "upper")
    client.tryon(drawn.other_look.image, drawn.flat.image, num_inference_steps=1000)


_VISITS: tuple[Visit, ...] = (_tryon, _tryon, _edit, _tryon, _tryon, _tryon, _edit, _give_up, _tryon, _tryon, _mistake)
