"""Both transports against small KServe servers: what is on the wire, errors, timeouts, threads, restarts."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dressform import (
    TLS,
    AccessDenied,
    Client,
    DeadlineExceeded,
    DressformError,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerError,
    ServerUnavailable,
)
from dressform.errors import BY_CODE
from dressform.transports import Address
from dressform_contract import ERRORS, Fault
from unit.client_fakes import SERVERS, Kserve, http_server, png


@pytest.fixture(params=SERVERS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(protocol: str) -> Iterator[Kserve]:
    with SERVERS[protocol](Kserve()) as state:
        yield state


@pytest.fixture
def client(server: Kserve) -> Iterator[Client]:
    with Client(server.url, retries=0) as client:
        yield client


WIRE = {
    "grpc": {int: "int64_param", float: "double_param", bool: "bool_param", str: "string_param"},
    "http": {kind: kind.__name__ for kind in (int, float, bool, str)},
}


def test_what_is_on_the_wire(server, client, protocol):
    options = {
        "seed": 2**53 - 1,
        "guidance_scale": 7.0,
        "strength": 1,
        "mask_invert": False,
        "solver": "dpmpp_2m",
        "mask_grow": -3,
    }
    result = client.inpaint(png(), png((3, 3)), "süß", request_id="an-id", **options)
    seen = server.arrived[0]
    assert (seen.model, seen.id) == ("inpaint", "an-id")
    assert seen.parameters == {name: (WIRE[protocol][type(value)], value) for name, value in options.items()}
    assert [type(seen.parameters[name][1]) for name in options] == [type(value) for value in options.values()]
    assert seen.inputs == {"image": png(), "mask": png((3, 3)), "prompt": "süß".encode()}
    assert set(map(str, seen.shapes.values())) == {"('BYTES', [1, 1])"}
    assert result.seeds == [2**53 - 1]
    assert result.image.size == (8, 6)


def test_a_mask_is_on_the_wire_too(server, client, protocol):
    result = client.mask(png(), "lower", request_id="an-id")
    seen = server.arrived[0]
    assert (seen.model, seen.id, seen.inputs) == ("mask", "an-id", {"person": png()})
    assert seen.parameters == {"category": (WIRE[protocol][str], "lower")}
    assert (result.category, result.mask_used.mode, result.mask_used.size) == ("lower", "L", (8, 6))


def test_pictures_above_the_usual_message_limit(server, client):
    noise = np.random.default_rng(0).integers(0, 256, (1600, 1600, 3), dtype=np.uint8)  # 7.7 MB, does not compress
    result = client.inpaint(noise, png(), "a hat", seed=1)
    assert len(server.arrived[0].inputs["image"]) > 7_000_000
    assert np.array_equal(np.asarray(result.image), noise)


def test_32_threads_share_a_client(server, client):
    """Each gets its own answer, all are in flight at once, and the next rounds find the connections again."""
    server.hold = threading.Event()

    def call(i: int) -> tuple[int, int]:
        result = client.inpaint(Image.new("RGB", (i + 1, 2)), png(), "a hat", seed=i)
        return result.seed, result.image.width

    for _ in range(3):
        server.arrived.clear()
        server.hold.clear()
        with ThreadPoolExecutor(32) as pool:
            answers = [pool.submit(call, i) for i in range(32)]
            end = time.monotonic() + 20
            while len(server.arrived) < 32 and time.monotonic() < end:
                time.sleep(0.01)
            in_flight = len(server.arrived)
            server.hold.set()
            assert [future.result(20) for future in answers] == [(i, i + 1) for i in range(32)]
        assert in_flight == 32
    assert len(server.connections) <= 32


def test_connections_are_kept(server, client):
    for _ in range(5):
        client.inpaint(png(), png(), "a hat", seed=1)
    assert len(server.connections) == 1


def test_a_timeout_is_a_deadline_exceeded(server, client):
    server.hold = threading.Event()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="Allow more time"):
        client.inpaint(png(), png(), "a hat", seed=1, timeout=0.3)
    assert time.monotonic() - began > 0.25
    server.hold.set()
    assert server.arrived[0].parameters["deadline_ms"][1] == 300
    assert client.inpaint(png(), png(), "a hat", seed=2).seed == 2  # the late answer is not taken for this one


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_there(protocol):
    url = f"{protocol}://127.0.0.1:{free_port()}"
    with Client(url, retries=0) as client:
        with pytest.raises(ServerUnavailable, match="dressform serve") as caught:
            client.inpaint(png(), png(), "a hat")
        assert url in str(caught.value)
        assert caught.value.__cause__ is not None
        health = client.health()
    assert not health
    assert url in health.reason


def test_a_server_that_comes_back_is_found(protocol):
    port = free_port()
    with Client(f"{protocol}://127.0.0.1:{port}") as client:
        with SERVERS[protocol](Kserve(), port):
            assert client.inpaint(png(), png(), "a hat", seed=1).seed == 1
        assert not client.health()
        with SERVERS[protocol](Kserve(), port):
            end = time.monotonic() + 10
            while not client.health() and time.monotonic() < end:
                time.sleep(0.05)
            assert client.inpaint(png(), png(), "a hat", seed=2).seed == 2


def test_health(server, client):
    health = client.health()
    assert (health.ready, health.tasks, health.server) == (True, ("inpaint", "tryon"), "triton 2.51.0")
    server.ready = False
    health = client.health()
    assert not health
    assert "not ready" in health.reason


def test_the_other_protocols_port(server, protocol):
    other = {"grpc": "http", "http": "grpc"}[protocol]
    with Client(server.url.replace(protocol, other), retries=0) as client, pytest.raises(ServerUnavailable) as caught:
        client.inpaint(png(), png(), "a hat")
    assert "\x00" not in str(caught.value)
    assert "that the port speaks this protocol" in str(caught.value)


# --- errors ------------------------------------------------------------------------------------------------------


def test_every_code_has_a_class():
    assert set(BY_CODE) == set(ERRORS)
    for code, kind in BY_CODE.items():
        assert issubclass(kind, DressformError), code


@pytest.mark.parametrize("code", ERRORS)
def test_every_code_arrives_as_its_class(server, client, protocol, code):
    fields = tuple((name, "1250") for name in ERRORS[code].fields)
    text = f"in ensemble 'inpaint', {Fault(code, 'strength must be above 0: not 0', fields)}"
    status = ERRORS[code].status if protocol == "grpc" else str(ERRORS[code].http)
    server.fault = (status, text if protocol == "grpc" else f'{{"error": "{text}"}}')
    with pytest.raises(DressformError) as caught:
        client.inpaint(png(), png(), "a hat", request_id="r7")
    error = caught.value
    assert type(error) is BY_CODE[code]
    assert (error.code, error.fields, error.request_id) == (code, dict(fields), "r7")
    assert str(error).startswith("strength must be above 0: not 0.")
    assert "DRESSFORM" not in str(error)
    assert "ensemble" not in str(error)
    if isinstance(error, Overloaded):
        assert error.retry_after == 1.25


BARE = {
    "grpc": [
        ("INVALID_ARGUMENT", InvalidRequest),
        ("NOT_FOUND", NotFound),
        ("UNAVAILABLE", ServerUnavailable),
        ("UNAUTHENTICATED", AccessDenied),
        ("PERMISSION_DENIED", AccessDenied),
        ("RESOURCE_EXHAUSTED", InvalidRequest),
        ("INTERNAL", ServerError),
        ("UNIMPLEMENTED", ServerError),
    ],
    "http": [
        ("400", InvalidRequest),
        ("401", AccessDenied),
        ("403", AccessDenied),
        ("404", NotFound),
        ("413", InvalidRequest),
        ("429", Overloaded),
        ("500", ServerError),
        ("503", ServerUnavailable),
        ("504", DeadlineExceeded),
    ],
}


@pytest.mark.parametrize(("name", "status", "kind"), [(n, s, k) for n, rows in BARE.items() for s, k in rows])
def test_an_answer_without_a_code_is_judged_by_its_status(name, status, kind):
    with (
        SERVERS[name](Kserve(fault=(status, "<html>bad gateway</html>"))) as state,
        Client(state.url, retries=0) as client,
    ):
        with pytest.raises(kind, match="bad gateway") as caught:
            client.inpaint(png(), png(), "a hat")
        assert type(caught.value) is kind
        assert caught.value.code is None


def test_overloaded_without_a_time_waits_a_second():
    assert Overloaded("full").retry_after == 1.0
    assert Overloaded("full", fields={"retry_after_ms": "x"}).retry_after == 1.0


def test_errors_survive_pickling():
    import pickle

    error = Overloaded("The server is full", code="OVERLOADED", fields={"retry_after_ms": "300"}, request_id="r")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.retry_after, again.code) == (str(error), 0.3, "OVERLOADED")


def test_http_answer_that_is_not_kserve():
    with http_server(Kserve(fault=("200", '{"hello": 1}'))) as state, Client(state.url, retries=0) as client:
        with pytest.raises(ServerError, match="lacks images"):
            client.inpaint(png(), png(), "a hat")
        state.fault = ("200", "<html>")
        with pytest.raises(ServerError, match="is not KServe's"):
            client.inpaint(png(), png(), "a hat")


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown", "secure"),
    [
        ("grpc://gpu-1", "grpc://gpu-1:8001", False),
        ("http://gpu-1", "http://gpu-1:8000", False),
        ("grpcs://gpu-1:443", "grpcs://gpu-1:443", True),
        ("https://shop.example/triton/", "https://shop.example:443/triton", True),
        ("grpc://[::1]:9", "grpc://[::1]:9", False),
    ],
)
def test_addresses(url, shown, secure):
    address = Address.parse(url)
    assert (str(address), address.secure) == (shown, secure)


@pytest.mark.parametrize("url", ["", "localhost:8001", "ftp://x", "grpc://", "http://h:port", "grpc://h/path", None])
def test_what_is_no_address(url):
    with pytest.raises(InvalidRequest, match="a server's address looks like grpc://"):
        Client(url)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_certificates_that_cannot_be_used_are_refused(scheme, tmp_path):
    file = tmp_path / "some.pem"
    with pytest.raises(InvalidRequest, match=r"ca_file: cannot read .*some.pem"):
        TLS(ca_file=file)
    file.write_text("no certificate")
    with pytest.raises(InvalidRequest, match="of no use without certificate_file"):
        TLS(key_file=file)
    with pytest.raises(InvalidRequest, match="not encrypted: write grpcs:// or https://"):
        Client(f"{scheme}://127.0.0.1:9", tls=TLS(ca_file=file))


def test_a_certificate_and_its_key_may_stand_in_one_file(tmp_path):
    made = (
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=me -keyout me.key -out me.crt; cat me.key me.crt > me.pem"
    )
    subprocess.run(made, shell=True, cwd=tmp_path, check=True, capture_output=True)
    for scheme in ("grpcs", "https"):
        url = f"{scheme}://127.0.0.1:{free_port()}"
        with Client(url, tls=TLS(certificate_file=tmp_path / "me.pem")) as client:
            assert "refused" in client.health().reason.lower()
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(InvalidRequest, match="cannot be used"):
        Client("https://127.0.0.1:9", tls=TLS(certificate_file=tmp_path / "junk.pem"))


def test_https_connects_with_tls():
    """A plain server at an https address fails in the handshake, as ServerUnavailable."""
    with http_server(Kserve()) as state:
        url = state.url.replace("http:", "https:")
        with (
            Client(url, tls=TLS(), retries=0) as client,
            pytest.raises(ServerUnavailable, match=r"(?i)ssl|wrong version"),
        ):
            client.inpaint(png(), png(), "a hat")


INTERRUPTED = """
import faulthandler, random, signal, sys, threading, time
from PIL import Image
from dressform import Client

def interrupt():
    time.sleep(random.random() * 0.002)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

faulthandler.dump_traceback_later(60, exit=True)  # what hangs is shown
picture, met = Image.new("RGB", (64, 64)), 0
for _ in range(60):
    client = Client(sys.argv[1], retries=0)
    presser = threading.Thread(target=interrupt)
    client.inpaint(picture, picture, "a hat", seed=1)
    try:
        presser.start()
        while True:
            client.inpaint(picture, picture, "a hat", seed=1)
    except KeyboardInterrupt:
        met += 1
    presser.join()
    client.inpaint(picture, picture, "a hat", seed=1)
    client.close()
print(met)
"""


def test_ctrl_c_at_any_moment_leaves_the_client_usable(server):
    """60 of them, each within the first 2 ms of a stream of calls."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, server.url], capture_output=True, text=True, env=_environment()
    )
    assert (done.returncode, done.stdout.strip()) == (0, "60"), done.stderr


def test_only_the_protocol_in_use_is_imported():
    script = "import sys, dressform; dressform.Client('http://h'); print('grpc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=_environment()
    )
    assert done.stdout.strip() == "False"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
