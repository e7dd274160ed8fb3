"""Lines of the log: what is in one of Triton's, and how they are written, as they come or as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

TRITON_LINE = re.compile(r"(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ \d+ (?P<where>[^\]]+)\] (?P<text>.*)")
OURS, TRITONS = "dressform", "triton"
"""Who says a line."""
_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "fatal"}
_WARNING = "warning: "
_REQUEST = "request "
"""Begins the line about a request that is over (`jobs.usage.log_line`): names and values in logfmt."""

Shape = Callable[[str, str], str]
"""How a line that somebody (``OURS`` or ``TRITONS``) says is written."""


def as_it_comes(line: str, source: str) -> str:  # noqa: ARG001
    """The line itself."""
    return line


def as_json(line: str, source: str) -> str:
    """An object of time, level, source and message; of a request that is over with what is known of it.

    The time is that of writing. Lines of Triton that have no level (a traceback's, say) are of the level info.
    """
    match = TRITON_LINE.match(line)
    if match is not None:
        entry = {"level": _LEVELS[match["level"]], "source": match["where"], "message": _unquoted(match["text"])}
    else:
        level = "warning" if line.startswith(_WARNING) else "info"
        entry = {"level": level, "source": source, "message": line.removeprefix(_WARNING)}
    known = dict(pair.split("=", 1) for pair in entry["message"].split()[1:] if "=" in pair)
    if match is not None and entry["message"].startswith(_REQUEST) and "outcome" in known:
        entry |= {"message": _REQUEST.strip(), **known}
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, **entry}, ensure_ascii=False)


FORMATS: Mapping[str, Shape] = {"text": as_it_comes, "json": as_json}
"""Each log format by its name."""


def _unquoted(text: str) -> str:
    """Triton writes messages as JSON strings, most of them."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text
