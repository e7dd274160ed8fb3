"""The real server tells how each request went: metrics, log, audit log and OpenTelemetry traces."""

from __future__ import annotations

import json
import re
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from PIL import Image
from tritonclient.utils import InferenceServerException

from dressform import Cancelled, Client, InvalidRequest
from dressform_bench.request_trace import CALLER, TRACE_ID, Receiver, Span, receiving
from dressform_server import Server
from e2e.raw import raw
from jobs.ledger import STAGES
from waiting import wait_until

PROMPT = "a coat that nobody may read of"
PARENT = f"00-{TRACE_ID}-{CALLER}-01"


@dataclass(frozen=True)
class Told:
    """A server, and what it says of itself."""

    server: Server
    receiver: Receiver
    audit_log: Path
    log: Path

    def entries(self) -> list[dict[str, Any]]:
        """The audit log's lines about requests."""
        lines = [json.loads(line) for line in self.audit_log.read_text().splitlines()]
        return [line for line in lines if line["event"] == "request"]

    def entry(self, request_id: str) -> dict[str, Any]:
        """What the audit log says of a request, once it does."""
        wait_until(lambda: any(line["id"] == request_id for line in self.entries()), 30)
        (entry,) = [line for line in self.entries() if line["id"] == request_id]
        return entry

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have these labels."""
        text = urllib.request.urlopen(self.server.metrics_url, timeout=10).read().decode()
        found = 0.0
        for line in text.splitlines():
            if match := re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line):
                has = dict(re.findall(r'(\w+)="([^"]*)"', match[1] or ""))
                found += float(match[2]) if labels.items() <= has.items() else 0
        return found

    def spans(self, enough: Callable[[list[Span]], object]) -> list[Span]:
        """The spans of ``TRACE_ID`` once they are enough."""
        return [s for s in self.receiver.wait(lambda found: enough(list(found)), 30) if s.trace == TRACE_ID]


@pytest.fixture(scope="module")
def told(tiny_tryon_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("told")
    audit_log, log = folder / "audit.jsonl", folder / "triton.log"
    with (
        receiving() as receiver,
        Server(
            tiny_tryon_repository,
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            log=log,
            audit_log=audit_log,
            otlp_endpoint=receiver.address,
            trace_ratio=0.0,
        ) as server,
    ):
        server.wait_ready(120)
        yield Told(server, receiver, audit_log, log)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_is_one_trace_of_all_stages_and_steps(
    told: Told, protocol: str, photo: Image.Image, mask: Image.Image
) -> None:
    url = told.server.grpc_url if protocol == "grpc" else told.server.http_url
    caller = f"{uuid.uuid4().int % 2**64:016x}"
    headers = {"traceparent": f"00-{TRACE_ID}-{caller}-01", "Dressform-Trace": "steps", "Dressform-Client": "shop-a"}
    with Client(url, timeout=60) as client:
        result = client.inpaint(photo, mask, PROMPT, num_inference_steps=6, headers=headers)

    def mine(found: list[Span]) -> list[Span]:
        roots = {span.id for span in found if span.parent == caller}
        stages = {span.id for span in found if span.parent in roots}
        return [span for span in found if span.id in roots | stages or span.parent in stages]

    spans = mine(told.spans(mine))
    (root,) = [span for span in spans if span.parent == caller]
    assert (root.name, root.attributes["dressform.client"]) == ("inpaint", "shop-a")
    stages = sorted((span for span in spans if span.parent == root.id), key=lambda span: span.start_ns)
    assert [span.name for span in stages] == list(STAGES)
    assert stages[0].start_ns == root.start_ns
    assert stages[-1].end_ns == root.end_ns
    assert all(before.end_ns == after.start_ns for before, after in pairwise(stages))
    for span in stages:
        assert span.milliseconds == pytest.approx(result.info["milliseconds"][span.name], abs=2)
    denoise = stages[3]
    steps = sorted((span for span in spans if span.parent == denoise.id), key=lambda span: span.start_ns)
    assert [span.name for span in steps] == [f"step {number}" for number in range(1, 7)]
    assert [span.attributes["dressform.jobs"] for span in steps] == result.info["batch_sizes"]
    assert denoise.attributes["dressform.steps"] == 6
    assert denoise.attributes["dressform.unet_rows"] == result.info["unet_rows"]
    assert PROMPT not in str(spans)


def test_the_clients_own_span_is_the_parent(told: Told, photo: Image.Image, mask: Image.Image) -> None:
    parent = trace.SpanContext(int(TRACE_ID, 16), int(CALLER, 16), True, trace.TraceFlags(1))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    try:
        with TracerProvider().get_tracer("shop").start_as_current_span("checkout") as checkout:
            name = f"{checkout.get_span_context().span_id:016x}"
            with Client(told.server.grpc_url, timeout=60) as client:
                client.inpaint(photo, mask, PROMPT, num_inference_steps=2)
    finally:
        context.detach(token)
    spans = told.spans(lambda found: [span for span in found if span.parent == name])
    assert any(span.parent == name and span.name == "inpaint" for span in spans)


def test_every_outcome_is_counted_logged_and_written_down(told: Told, photo: Image.Image, mask: Image.Image) -> None:
    ids = {name: str(uuid.uuid4()) for name in ("done", "refused", "cancelled")}
    with Client(told.server.grpc_url, timeout=60, headers={"dressform-client": "outcomes"}, retries=0) as client:
        client.inpaint(photo, mask, PROMPT, num_inference_steps=3, request_id=ids["done"])
        with pytest.raises(InvalidRequest):
            client.inpaint(photo, Image.new("L", photo.size), PROMPT, request_id=ids["refused"])  # an empty mask
        handle = client.submit_inpaint(
            photo, mask, PROMPT, num_inference_steps=150, num_images=4, request_id=ids["cancelled"]
        )
        assert any(news.step for news in handle.progress())
        assert handle.cancel()
        with pytest.raises(Cancelled):
            handle.result()
        client.feedback(ids["done"], "up")
    entries = {name: told.entry(ids[name]) for name in ("done", "refused", "cancelled")}
    for name, entry in entries.items():
        assert entry["outcome"] == name
        assert (entry["task"], entry["client"]) == ("inpaint", "outcomes")
        wait_until(lambda name=name: told.metric("dressform_requests_total", client="outcomes", outcome=name) == 1, 10)
    assert [entries[name]["code"] for name in entries] == ["", "INVALID_ARGUMENT", "CANCELLED"]
    done, cancelled = entries["done"], entries["cancelled"]
    assert set(done["milliseconds"]) == {*STAGES, "total"}
    assert set(cancelled["milliseconds"]) == {"preprocess", "encode", "wait", "denoise", "total"}
    assert 0 < cancelled["steps"] < 150
    assert done["steps"] == 3
    assert 0 < done["compute_ms"] < done["milliseconds"]["total"]
    assert told.metric("dressform_compute_seconds_total", client="outcomes") == pytest.approx(
        (done["compute_ms"] + cancelled["compute_ms"]) / 1000, rel=0.01
    )
    lines = told.log.read_text()
    logged = dict(re.findall(r"request id=(\S{8}) task=inpaint client=outcomes outcome=(\w+) ", lines))
    assert logged == {ids[name][:8]: name for name in entries}
    for text in (lines, told.audit_log.read_text()):
        assert PROMPT not in text
    assert not any(ids[name] in lines for name in entries)
    assert '"event": "feedback"' in told.audit_log.read_text()


def test_nobody_escapes_by_a_long_id(told: Told, photo: Image.Image, mask: Image.Image) -> None:
    for request_id in ("x" * 150_000, "x" * 10_000, "one more"):
        with suppress(InferenceServerException):
            raw(told.server, photo, mask, request_id=request_id, headers={"dressform-client": "long-ids"})
    wait_until(lambda: sum(entry["client"] == "long-ids" for entry in told.entries()) == 3, 30)
    codes = [entry["code"] for entry in told.entries() if entry["client"] == "long-ids"]
    assert codes == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", ""]
    assert told.metric("dressform_requests_refused_total", reason="invalid_argument") >= 2


def test_a_call_that_its_sender_broke_off_is_no_failure(told: Told, photo: Image.Image, mask: Image.Image) -> None:
    before = {name: told.metric("dressform_requests_ended_total", outcome=name) for name in ("cancelled", "failed")}
    request_id = str(uuid.uuid4())
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        raw(told.server, photo, mask, request_id=request_id, client_timeout=0.2, parameters={"num_inference_steps": 99})
    entry = told.entry(request_id)
    assert (entry["outcome"], entry["code"], entry["steps"]) == ("cancelled", "ABANDONED", 99)
    name = "dressform_requests_ended_total"
    wait_until(lambda: told.metric(name, outcome="cancelled") == before["cancelled"] + 1, 10)
    assert told.metric(name, outcome="failed") == before["failed"]


def test_metrics_add_up(told: Told, photo: Image.Image, mask: Image.Image) -> None:
    before = {name: told.metric(name) for name in ("dressform_requests_total", "dressform_request_seconds_count")}
    with Client(told.server.http_url, timeout=60) as client:
        for _ in range(5):
            client.inpaint(photo, mask, PROMPT, num_inference_steps=2)
    wait_until(lambda: told.metric("dressform_requests_total") == before["dressform_requests_total"] + 5, 30)
    count = told.metric("dressform_request_seconds_count", task="inpaint")
    assert count == before["dressform_request_seconds_count"] + 5
    assert told.metric("dressform_requests_total", outcome="done") == count
    for stage in STAGES:
        assert told.metric("dressform_stage_seconds_count", stage=stage) == count
    whole = told.metric("dressform_request_seconds_sum")
    assert told.metric("dressform_stage_seconds_sum") == pytest.approx(whole)
    assert told.metric("dressform_requests_total", client="unnamed") >= 5


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"dressform-client": "a shop"}, "dressform-client must be 1 to 64 letters"),
        ({"dressform-client": "x" * 65}, "dressform-client must be 1 to 64 letters"),
        ({"dressform-trace": "everything"}, "dressform-trace must be steps, not 'everything'"),
    ],
)
def test_headers_that_are_not_allowed_are_refused_by_name(
    told: Told, photo: Image.Image, mask: Image.Image, headers: dict[str, str], sentence: str
) -> None:
    for url in (told.server.grpc_url, told.server.http_url):
        with Client(url, timeout=60) as client, pytest.raises(InvalidRequest, match=sentence):
            client.inpaint(photo, mask, PROMPT, headers=headers)


def test_nobody_takes_anothers_name_by_a_parameter(told: Told) -> None:
    """A proxy sets the header by the caller's key (docker/balancer/edge.cfg); the body is the caller's own."""
    url = f"{told.server.http_url}/v2/models/inpaint/generate"
    for name in ("dressform-client", "Dressform-Client"):
        body = {"image": "", "mask": "", "prompt": PROMPT, "parameters": {name: "somebody-else"}, name: "somebody-else"}
        answer = httpx.post(url, json=body, headers={"dressform-client": "by-its-key"})
        assert answer.is_client_error, answer.text
    wait_until(lambda: told.metric("dressform_requests_total", client="by-its-key") >= 0, 1)
    assert told.metric("dressform_requests_total", client="somebody-else") == 0
