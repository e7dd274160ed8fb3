"""When an answer is due at the latest: by what its caller allows, and by what the server allows any request.

The server's own limit comes by the environment (``--longest-request``), in seconds. What must outlast the longest
request, proxies and stops, is set above it.
"""

from __future__ import annotations

import os

VARIABLE = "DRESSFORM_LONGEST_REQUEST"


def longest_ms() -> int | None:
    """What the server allows any request, in ms; None: as long as it takes."""
    seconds = os.environ.get(VARIABLE)
    return 1000 * int(seconds) if seconds else None


def allowed_ms(asked: int | None) -> int | None:
    """The earlier of the caller's deadline ``asked`` and the server's."""
    return min((limit for limit in (asked, longest_ms()) if limit is not None), default=None)


def spelled(deadline_ms: int) -> str:
    """The deadline in words, which say whether it is the server's own."""
    whose = " (the server's own limit for any request)" if deadline_ms == longest_ms() else ""
    return f"{deadline_ms} ms{whose}"
