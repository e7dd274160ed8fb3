"""The window on work in flight, on the real server: `watch` and `jobs` beside requests that know nothing of them."""

from __future__ import annotations

import base64
import io
import json
import queue
import random
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image

from dressform import Client
from dressform.errors import Cancelled, DressformError
from dressform_contract import Fault
from dressform_server import Server
from e2e.conftest import LONG
from e2e.window import Event, Window
from waiting import wait_until

ENDED = ("done", "failed", "cancelled")
SHORTEST_LEASE = 15.0


@pytest.fixture
def window(server: Server) -> Iterator[Window]:
    """Every test leaves an empty server, except for slots that wait for their leases."""
    yield Window(server)
    wait_until(lambda: not Window(server).jobs("list"), 2 * SHORTEST_LEASE)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture
def paint(grpc_client: Client, photo: Image.Image, mask: Image.Image, pool: ThreadPoolExecutor) -> Any:
    """Starts a request: (request id, options) → its future result."""

    def submit(request_id: str, client: Client = grpc_client, **options: Any) -> Future[Any]:
        return pool.submit(client.inpaint, photo, mask, "a coat", request_id=request_id, seed=1, **options)

    return submit


def new_id() -> str:
    return uuid.uuid4().hex


def grpc_watch(server: Server, request_id: str, seconds: float = 60) -> list[Event]:
    """All events of a request by gRPC stream."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    events: list[Event] = []
    with grpc.InferenceServerClient(urlsplit(server.grpc_url).netloc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        tensor = grpc.InferInput("id", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([request_id.encode()], np.object_))
        client.async_stream_infer("watch", [tensor])
        while not events or events[-1].get("state") not in (None, *ENDED):
            result, error = answers.get(timeout=seconds)
            if error is not None:
                fault = Fault.parse(error.message())
                return [*events, {"fault": fault.code if fault else error.message()}]
            events.append(json.loads(result.as_numpy("event")[0]))
    return events


def check_story(events: list[Event], steps: int) -> None:
    """Monotone, and complete at its end."""
    order = ["preparing", "waiting", "running", "decoding", "done"]
    assert all(set(event) - {"preview"} == {"state", "step", "total", "position", "eta_ms"} for event in events), events
    done = [event["step"] for event in events]
    assert done == sorted(done)
    assert events[-1]["state"] == "done"
    assert done[-1] == steps
    assert {event["total"] for event in events} == {steps}
    states = [order.index(event["state"]) for event in events]
    assert states == sorted(states)
    running = [event for event in events if event["state"] == "running"]
    assert len({event["step"] for event in running}) >= steps // 10, "a watcher sees the steps as they happen"
    assert all(event["eta_ms"] >= 0 for event in running)


def test_watch_by_both_protocols_early_and_twice(
    server: Server, window: Window, paint: Any, pool: ThreadPoolExecutor
) -> None:
    request_id = new_id()
    streams = [pool.submit(grpc_watch, server, request_id), pool.submit(lambda: list(window.watch(request_id)))]
    time.sleep(0.3)
    result = paint(request_id, num_inference_steps=80, strength=0.75, num_images=4, height=128, width=128).result()
    for stream in streams:
        check_story(stream.result(), result.info["steps"])


def test_a_late_watcher_sees_the_end(server: Server, window: Window, paint: Any) -> None:
    request_id = new_id()
    paint(request_id, num_inference_steps=3).result()
    for events in (grpc_watch(server, request_id), list(window.watch(request_id))):
        assert [(event["state"], event["step"]) for event in events] == [("done", 3)]


def test_previews_come_as_asked(window: Window, paint: Any) -> None:
    request_id = new_id()
    painted = paint(request_id, num_inference_steps=80, preview_every=10, height=128, width=64)
    pictures = [event["preview"] for event in window.watch(request_id) if "preview" in event]
    painted.result()
    assert 1 <= len(pictures) <= 8
    for url in pictures:
        media, _, data = url.partition(";base64,")
        assert media == "data:image/jpeg"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (8, 16)
    plain = new_id()
    painted = paint(plain, num_inference_steps=10)
    assert not [event for event in window.watch(plain) if "preview" in event]
    painted.result()


def test_strangers_are_told_nothing(server: Server, window: Window, paint: Any, pool: ThreadPoolExecutor) -> None:
    request_id = new_id()
    stranger = request_id[:8] + new_id()[8:]
    watches = [pool.submit(grpc_watch, server, stranger), pool.submit(lambda: list(window.watch(stranger)))]
    painted = paint(request_id, **LONG)
    wait_until(window.stepping(request_id), 30)
    (job,) = window.jobs("list")
    assert (job["task"], job["rows"], job["total"], job["cancelled"]) == ("inpaint", 8, 150, False)
    assert job["state"] == "running"
    assert job["age_ms"] > 0
    assert request_id[:9] not in json.dumps(job), "ids are capabilities"
    for inputs, code in (
        ({"action": "cancel", "id": stranger}, "NOT_FOUND"),
        ({"action": "cancel", "id": request_id[:8]}, "INVALID_ARGUMENT"),
        ({"action": "cancel"}, "INVALID_ARGUMENT"),
        ({"action": "stop"}, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            window.post("jobs", "generate", inputs)
        fault = Fault.parse(refused.value.read().decode())
        assert fault is not None
        assert fault.code == code
    window.jobs("cancel", id=request_id)
    with pytest.raises(Cancelled):
        painted.result()
    assert list(window.watch(request_id[:8])) == grpc_watch(server, "") == [{"fault": "INVALID_ARGUMENT"}]
    assert [watch.result() for watch in watches] == [[{"fault": "NOT_FOUND"}]] * 2


def test_cancel_midway(window: Window, paint: Any, client: Client) -> None:
    """The rows are free at the next step, and the client is told, with the status of its protocol."""
    request_id = new_id()
    painted = paint(request_id, client=client, **LONG)
    wait_until(window.stepping(request_id), 30)
    assert window.jobs("cancel", id=request_id) == {"cancelled": True}
    wait_until(lambda: not window.jobs("list"), 30)
    with pytest.raises(Cancelled) as cancelled:
        painted.result()
    cause = cancelled.value.__cause__
    if cause is not None and hasattr(cause, "status"):
        assert cause.status() in ("StatusCode.CANCELLED", "400")
    (last,) = window.watch(request_id)
    assert last["state"] == "cancelled"
    assert 0 < last["step"] < 150
    with pytest.raises(urllib.error.HTTPError) as again:
        window.jobs("cancel", id=request_id)
    assert b"DRESSFORM_NOT_FOUND" in again.value.read()


def test_cancel_before_the_first_step(window: Window, paint: Any) -> None:
    request_id = new_id()
    painted = paint(request_id, **LONG)

    def cancelled() -> bool:
        try:
            return bool(window.jobs("cancel", id=request_id))
        except urllib.error.HTTPError:
            return False

    wait_until(cancelled, 10)
    with pytest.raises(Cancelled):
        painted.result()
    (last,) = window.watch(request_id)
    assert last["state"] == "cancelled"
    assert last["step"] < 30


def test_an_id_in_flight_is_refused(window: Window, paint: Any) -> None:
    request_id = new_id()
    first = paint(request_id, **LONG)
    wait_until(lambda: window.jobs("list"), 10)
    with pytest.raises(DressformError) as refused:
        paint(request_id, num_inference_steps=2).result()
    assert "id" in str(refused.value)
    window.jobs("cancel", id=request_id)
    with pytest.raises(Cancelled):
        first.result()
    assert paint(request_id, num_inference_steps=2).result().info["steps"] == 2, "the id is free again"
    shared = [paint("short", num_inference_steps=5) for _ in range(2)]
    assert [request.result().info["steps"] for request in shared] == [5, 5], "short ids are nobody's"


def test_a_refused_request_frees_its_slot(window: Window, grpc_client: Client, mask: Image.Image) -> None:
    request_id = new_id()
    for _ in range(2):
        with pytest.raises(DressformError, match="image"):
            grpc_client.inpaint(b"no picture", mask, "x", request_id=request_id)
        assert window.jobs("list") == []


def test_deaf_and_vanished_watchers_harm_nobody(server: Server, window: Window, paint: Any) -> None:
    request_id = new_id()
    body = json.dumps({"id": request_id}).encode()
    address = urlsplit(server.http_url)
    deaf = []
    for _ in range(6):
        connection = socket.create_connection((address.hostname, address.port))
        head = f"POST /v2/models/watch/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        deaf.append(connection)
    painted = paint(request_id, num_inference_steps=60, preview_every=1)
    wait_until(window.stepping(request_id), 30)
    for connection in deaf[:3]:
        connection.close()
    events = list(window.watch(request_id))
    assert painted.result().info["steps"] == 60
    assert events[-1]["state"] == "done"
    for connection in deaf[3:]:
        connection.close()
    for _ in range(3):
        paint(new_id(), num_inference_steps=2).result()


def test_clients_that_hang_up_leak_nothing(
    server: Server, window: Window, photo: Image.Image, mask: Image.Image, pool: ThreadPoolExecutor
) -> None:
    """By HTTP, at any moment: while pictures are encoded, denoised or decoded. (Cancelling a gRPC call may crash this
    Triton, see its issue 7368, so that our client never does.)
    """
    address = urlsplit(server.http_url)
    moments = random.Random(7)

    def hang_up(after: float) -> None:
        body = kserve(photo, mask, new_id(), {"num_inference_steps": 4, "num_images": 4})
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"POST /v2/models/inpaint/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            time.sleep(after)

    for gone in [pool.submit(hang_up, moments.uniform(0.01, 0.5)) for _ in range(24)]:
        gone.result()
    wait_until(lambda: window.jobs("health")["in_flight"] == 0, 30)


def test_a_job_that_dies_between_stages_leaks_nothing(
    window: Window, paint: Any, photo: Image.Image, mask: Image.Image
) -> None:
    """`preprocess` called alone: a job that no later stage ever hears of."""
    paint(new_id(), num_inference_steps=2).result()  # the step time is known, so leases are short
    request_id = new_id()
    window.post("preprocess", "infer", json.loads(kserve(photo, mask, request_id, {}, outputs=("slot",)))).close()
    (job,) = window.jobs("list")
    assert job["state"] == "preparing"
    events = list(window.watch(request_id))
    assert [event["state"] for event in events] == ["preparing", "failed"], "who watches it is told"
    assert window.jobs("list") == []
    assert paint(request_id, num_inference_steps=2).result().info["steps"] == 2


def test_health_beats(window: Window, paint: Any) -> None:
    request_id = new_id()
    painted = paint(request_id, **LONG)
    wait_until(window.stepping(request_id), 30)
    health = window.jobs("health")
    assert health["in_flight"] == health["denoising"] == 1
    assert health["beat_age_ms"] < 30_000
    assert health["work_ms"] > 0
    assert health["step_ms"] > 0
    window.jobs("cancel", id=request_id)
    with pytest.raises(Cancelled):
        painted.result()


def kserve(
    photo: Image.Image, mask: Image.Image, request_id: str, options: dict[str, Any], outputs: tuple[str, ...] = ()
) -> bytes:
    """The body of a request to ``infer``."""
    pictures = {"image": png(photo), "mask": png(mask)}
    data = {name: f"data:image/png;base64,{base64.b64encode(content).decode()}" for name, content in pictures.items()}
    tensors = [
        {"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [value]}
        for name, value in (data | {"prompt": "x"}).items()
    ]
    wanted = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return json.dumps({"id": request_id, "parameters": options, "inputs": tensors} | wanted).encode()


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
