"""What the records of each benchmark must have; whatever else is in them is optional."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

NUMBER = (int, float)
PERHAPS = (int, float, type(None))
"""A number, or null where nothing was there to be measured."""
ANY = "*"
"""The key of a form whose value is that of every key."""

COMMON: Mapping[str, Any] = {
    "benchmark": str,
    "created": str,
    "command": str,
    "machine": {"name": str},
    "versions": {ANY: str},
    "settings": {},
    "model": str,
}
"""What every record has. A form is a type (or several), a list with the form of its items, or forms by key."""

_LATENCIES = {"share_within_slo": PERHAPS, "p50_s": PERHAPS, "p95_s": PERHAPS, "p99_s": PERHAPS}
_COMPARED = {"p50_s": PERHAPS, "p95_s": PERHAPS, "goodput_per_s": PERHAPS}

FORMS: Mapping[str, Mapping[str, Any]] = {
    "peers": {"height": int, "width": int, "steps": int, "rows": [{"peer": str, "seconds": NUMBER}]},
    "load": {
        "summary": {"requests": int, "failures": int},
        "series": [{"t": NUMBER, "requests_per_second": NUMBER, "failures": int}],
    },
    "openloop": {
        "pattern": str,
        "slo": str,
        "kept_share": NUMBER,
        "solo_capacity_per_s": NUMBER,
        "slo_rate_per_s": {ANY: NUMBER},
        "rows": [{"mode": str, "load": NUMBER, "offered_per_s": NUMBER, "goodput_per_s": NUMBER, **_LATENCIES}],
    },
    "overhead": {
        "rows": [
            {
                "jobs": int,
                "served_seconds": NUMBER,
                "bare_seconds": NUMBER,
                "served_over_bare": NUMBER,
                "parts_ms": {ANY: NUMBER},
            }
        ]
    },
    "simulate": {
        "step_time_model": {},
        "rows": [
            {
                "servers": int,
                "routing": str,
                "load": NUMBER,
                "rate_per_s": NUMBER,
                "offered_per_s": NUMBER,
                "goodput_per_s": NUMBER,
                **_LATENCIES,
            }
        ],
        "servers_needed": [
            {
                "rate_per_s": NUMBER,
                "offered_per_s": NUMBER,
                "routing": str,
                "servers": (int, type(None)),
                "servers_range": [(int, type(None))],
                "share_within_slo": PERHAPS,
            }
        ],
    },
    "step-overhead": {
        "rows": [{"jobs": int, "unet_rows": int, "step_ms": NUMBER, "bare_ms": NUMBER, "overhead_ms": NUMBER}]
    },
}
"""By benchmark, beside `COMMON`."""

VALIDATION = [
    {
        "rate_per_s": NUMBER,
        "measured": {**_COMPARED, "offered_per_s": NUMBER},
        "simulated": _COMPARED,
        "error": _COMPARED,
    }
]
"""Of ``simulate``, where it is not null."""


def problem(record: Any) -> str | None:
    """What is wrong with a record, in words; None: nothing."""
    if not isinstance(record, dict):
        return f"a record is an object, not {record!r:.40}"
    name = record.get("benchmark")
    if name is not None and name not in FORMS:
        return f"there is no benchmark {name!r:.40}: there are {', '.join(FORMS)}"
    found = _differs(record, {**COMMON, **FORMS.get(name or "", {})}, "")
    if found is None and record.get("validation") is not None:
        found = _differs(record["validation"], VALIDATION, "validation")
    if found is None:
        try:
            datetime.fromisoformat(record["created"])
        except ValueError:
            found = f"created must be a date and time of ISO 8601, not {record['created']!r:.40}"
    return found


def _differs(value: Any, form: Any, place: str) -> str | None:
    if isinstance(form, Mapping):
        if not isinstance(value, dict):
            return f"{place} must be an object, not {value!r:.40}"
        missing = [f"{place}.{key}".lstrip(".") for key in form if key != ANY and key not in value]
        if missing:
            return f"{', '.join(missing)} missing"
        inside = [(value[key], form.get(key, form.get(ANY)), f"{place}.{key}".lstrip(".")) for key in value]
        return next(filter(None, (_differs(*each) for each in inside if each[1] is not None)), None)
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{place} must be a list, not {value!r:.40}"
        return next(filter(None, (_differs(item, form[0], f"{place}[{k}]") for k, item in enumerate(value))), None)
    kinds = form if isinstance(form, tuple) else (form,)
    if (
        not isinstance(value, kinds)
        or isinstance(value, bool)
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        names = {str: "text", int: "a whole number", float: "a number", type(None): "null"}
        wanted = " or ".join(names[kind] for kind in kinds if not (kind is int and float in kinds))
        return f"{place} must be {wanted}, not {value!r:.40}"
    return None
