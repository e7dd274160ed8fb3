"""Requests as OpenTelemetry traces: spans, parents, sampling, and a receiver that is down."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from dressform import Client
from dressform.testing import FakeTransport
from dressform_bench.request_trace import CALLER, TRACE_ID, Receiver, receiving, table
from dressform_server import Settings, SettingsError
from dressform_server.flags import variables
from jobs.ledger import STAGES, Account
from jobs.tracing import Tracer

MS = 1_000_000
CHILD = f"00-{TRACE_ID}-{CALLER}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def account(**changes: Any) -> Account:
    """A request of three steps that ended just now."""
    now = time.monotonic_ns()
    ends = dict(
        zip(("started", "prepared", "admitted", "first_step", "finished", "decoded", "ended"), range(-60, 1, 10))
    )
    facts: dict[str, Any] = {
        "id": "eb2ee5ab-2a5c-4f0b-9f6e-3a1f0f1f2d3c",
        "task": "tryon",
        "client": "shop-a",
        "steps": 3,
        "unet_rows": 6,
        "batch_sizes": [1, 2, 2],
        "step_ends_ns": [now + offset * MS for offset in (-28, -25, -20)],
        "marks": {name: now + offset * MS for name, offset in ends.items()},
        "outcome": "done",
    }
    return Account(**{**facts, **changes})


def test_each_stage_has_a_span_in_the_callers_trace(receiver: Receiver) -> None:
    tracer = Tracer(receiver.address, 0.0, lambda _: None)
    tracer.tell(account(traceparent=f"{CHILD}-01"))
    tracer.close()
    spans = {span.name: span for span in receiver.wait(lambda found: len(found) >= 7, 10)}
    assert set(spans) == {"tryon", *STAGES}
    root = spans.pop("tryon")
    assert (root.trace, root.parent, root.failed) == (TRACE_ID, CALLER, False)
    assert root.attributes["dressform.client"] == "shop-a"
    assert root.attributes["dressform.request_id"] == "eb2ee5ab", "the whole one is what cancelling asks for"
    assert root.milliseconds == pytest.approx(60)
    assert abs(root.end_ns - time.time_ns()) < 60 * 10**9
    assert all((span.parent, span.trace) == (root.id, TRACE_ID) for span in spans.values())
    assert [spans[stage].milliseconds for stage in STAGES] == pytest.approx([10] * 6)
    steps = spans["denoise"].attributes
    assert (steps["dressform.steps"], steps["dressform.unet_rows"]) == (3, 6)
    assert steps["dressform.step_ms.mean"] == pytest.approx(10 / 3)
    assert steps["dressform.step_ms.max"] == pytest.approx(5)
    assert steps["dressform.jobs.mean"] == pytest.approx(5 / 3)


def test_steps_have_spans_where_they_are_asked_for(receiver: Receiver) -> None:
    tracer = Tracer(receiver.address, 1.0, lambda _: None)
    tracer.tell(account(trace_steps=True))
    tracer.close()
    spans = receiver.wait(lambda found: len(found) >= 10, 10)
    denoise = next(span for span in spans if span.name == "denoise")
    steps = sorted((span for span in spans if span.parent == denoise.id), key=lambda span: span.start_ns)
    assert [span.name for span in steps] == ["step 1", "step 2", "step 3"]
    assert [span.attributes["dressform.jobs"] for span in steps] == [1, 2, 2]
    assert [span.milliseconds for span in steps] == pytest.approx([2, 3, 5])
    root = next(span for span in spans if span.name == "tryon")
    assert root.parent == ""
    assert table(sorted(spans, key=lambda span: (span.start_ns, -span.end_ns)))[1].startswith("tryon ")


def test_a_failure_is_an_error_in_the_stage_that_it_came_in(receiver: Receiver) -> None:
    known = {
        name: when for name, when in account().marks.items() if name in ("started", "prepared", "admitted", "ended")
    }
    tracer = Tracer(receiver.address, 1.0, lambda _: None)
    tracer.tell(account(outcome="failed", code="ENGINE", marks=known, steps=0, step_ends_ns=[], batch_sizes=[]))
    tracer.close()
    spans = {span.name: span for span in receiver.wait(lambda found: len(found) >= 4, 10)}
    assert set(spans) == {"tryon", "preprocess", "encode", "wait"}
    assert spans["tryon"].failed
    assert spans["tryon"].attributes["dressform.code"] == "ENGINE"


@pytest.mark.parametrize(
    ("ratio", "parent", "sampled"),
    [(0.0, f"{CHILD}-01", 50), (1.0, f"{CHILD}-00", 0), (0.0, "", 0), (1.0, "", 50), (1.0, "nonsense", 50)],
)
def test_the_callers_flag_decides_else_the_ratio(receiver: Receiver, ratio: float, parent: str, sampled: int) -> None:
    tracer = Tracer(receiver.address, ratio, lambda _: None)
    for _ in range(50):
        tracer.tell(account(traceparent=parent))
    tracer.close()
    assert len(receiver.wait(lambda found: len(found) >= 7 * sampled, 10)) == 7 * sampled


def test_about_the_ratio_of_all_traces_is_sent(receiver: Receiver) -> None:
    tracer = Tracer(receiver.address, 0.3, lambda _: None)
    for _ in range(200):
        tracer.tell(account())
    tracer.close()
    roots = [span for span in receiver.wait(len, 10) if not span.parent]
    assert 30 <= len(roots) <= 90  # of a binomial distribution this misses once in 10^5


def test_a_receiver_that_is_down_holds_nothing_up_and_is_spoken_of_once() -> None:
    with socket.socket() as taken:  # bound, not listening: refused
        taken.bind(("127.0.0.1", 0))
        warnings: list[str] = []
        tracer = Tracer(f"http://127.0.0.1:{taken.getsockname()[1]}", 1.0, warnings.append)
        for _ in range(2000):
            tracer.tell(account())
        tracer.close()
    (warning,) = warnings
    assert warning.startswith("tracing: ")


def test_the_client_carries_the_current_span_on() -> None:
    fake = FakeTransport()
    tracer = TracerProvider().get_tracer("shop")
    from PIL import Image

    photo, mask = Image.new("RGB", (64, 64)), Image.new("L", (64, 64), 255)
    with Client(transport=fake) as client:
        client.inpaint(photo, mask, "a coat")
        with tracer.start_as_current_span("checkout") as span:
            client.inpaint(photo, mask, "a coat")
            client.inpaint(photo, mask, "a coat", headers={"traceparent": f"{CHILD}-01"})
    seen = [request.headers.get("traceparent") for request in fake.requests]
    context = span.get_span_context()
    assert seen == [None, f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}", f"{CHILD}-01"]


def test_settings_of_tracing_are_checked_and_told_to_the_stages(tmp_path: Any) -> None:
    for wrong in ("127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://127.0.0.1:4318/v1/traces", "http://"):
        with pytest.raises(SettingsError, match="OTLP endpoint must be http"):
            Settings(tmp_path, otlp_endpoint=wrong)
    for ratio in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="trace ratio must be from 0 to 1"):
            Settings(tmp_path, trace_ratio=ratio)
    with pytest.raises(SettingsError, match="audit log megabytes"):
        Settings(tmp_path, audit_log_megabytes=-1)
    told = variables(Settings(tmp_path, otlp_endpoint="http://127.0.0.1:4318", trace_ratio=0.25))
    assert told["DRESSFORM_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    assert told["DRESSFORM_TRACE_RATIO"] == "0.25"
    assert "DRESSFORM_OTLP_ENDPOINT" not in variables(Settings(tmp_path))
