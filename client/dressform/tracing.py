"""The caller's OpenTelemetry span, carried to the server: its trace of the request becomes a part of the caller's."""

from __future__ import annotations

import sys

from dressform_contract import TRACEPARENT_HEADER


def current() -> dict[str, str]:
    """The header ``traceparent`` (W3C Trace Context) of the current span; empty where there is none.

    OpenTelemetry is not imported here: who has a span has imported it.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return {}
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {TRACEPARENT_HEADER: f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"}
