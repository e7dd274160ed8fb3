"""docker/balancer/edge.cfg: a real haproxy with TLS, API keys and rate limits in front of the real server."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dressform import TLS, AccessDenied, Cancelled, Client, InvalidRequest, Overloaded, ServerUnavailable
from dressform_server import Server
from e2e.conftest import LONG
from e2e.tls import certificates
from waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")

BALANCER = Path(__file__).parents[2] / "docker" / "balancer"
SHOP, BACK_OFFICE = "the shop's key", "the back office's key"
SERVICE = "/inference.GRPCInferenceService"
Edge = Callable[..., str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates, and the edge's list of keys."""
    folder = tmp_path_factory.mktemp("edge")
    certificates(folder)
    (folder / "edge.pem").write_text((folder / "server.pem").read_text() + (folder / "server.key").read_text())
    names = {SHOP: "shop", BACK_OFFICE: "back-office"}
    (folder / "keys").write_text("".join(f"{hashlib.sha256(k.encode()).hexdigest()} {n}\n" for k, n in names.items()))
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def haproxy(files: Path, http: str, grpc: str, **settings: object) -> Iterator[str]:
    """The address ``127.0.0.1:port`` of an edge before the servers at ``http`` and ``grpc``."""
    address = f"127.0.0.1:{free_port()}"
    told = {
        "EDGE_BIND": address,
        "EDGE_CERTIFICATE": files / "edge.pem",
        "EDGE_KEYS": files / "keys",
        "EDGE_HTTP": http,
        "EDGE_GRPC": grpc,
        **settings,
    }
    log = files / "haproxy.log"
    with log.open("a") as lines:
        process = subprocess.Popen(
            ["haproxy", "-db", "-f", "edge.cfg"],
            cwd=BALANCER,
            env=os.environ | {name: str(value) for name, value in told.items()},
            stdout=lines,
            stderr=lines,
        )
        try:
            while process.poll() is None:
                with socket.socket() as knock:
                    if knock.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0:
                        break
                time.sleep(0.05)
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            process.terminate()
            process.wait()


def netloc(url: str) -> str:
    return url.partition("://")[2]


@pytest.fixture(scope="module")
def edge(files: Path, server: Server) -> Iterator[str]:
    with haproxy(files, netloc(server.http_url), netloc(server.grpc_url), EDGE_RATE=1000) as address:
        yield address


def bearer(key: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"}


@contextmanager
def client(scheme: str, address: str, files: Path, key: str | None = SHOP, **settings: Any) -> Iterator[Client]:
    headers = {} if key is None else bearer(key)
    tls = TLS(ca_file=files / "ca.pem")
    settings = {"timeout": 60, "retries": 0, "headers": headers} | settings
    with Client(f"{scheme}://{address}", tls=tls, **settings) as connected:
        yield connected


def fetch(
    files: Path, address: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> Any:
    """Status and JSON of an HTTP answer."""
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    request = urllib.request.Request(f"https://{address}{path}", body, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@contextmanager
def channel(files: Path, address: str) -> Iterator[grpc.Channel]:
    trusted = grpc.ssl_channel_credentials((files / "ca.pem").read_bytes())
    with grpc.secure_channel(address, trusted) as opened:
        yield opened


both = pytest.mark.parametrize("scheme", ["grpcs", "https"])


@both
def test_a_key_opens_pictures_watching_and_cancelling(
    scheme: str,
    edge: str,
    files: Path,
    grpc_client: Client,
    photo: Image.Image,
    mask: Image.Image,
    garment: Image.Image,
) -> None:
    expected = grpc_client.tryon(photo, garment, mask=mask, num_inference_steps=4, seed=7)
    with client(scheme, edge, files, timeout=900) as ours:
        assert ours.health().ready
        assert "tryon" in ours.health().tasks
        assert ours.about() == grpc_client.about()
        assert ours.tryon(photo, garment, mask=mask, num_inference_steps=4, seed=7).encoded == expected.encoded
        watched = ours.submit_tryon(photo, garment, mask=mask, num_inference_steps=4, seed=7)
        steps = [news.step for news in watched.progress()]
        assert steps[-1] == 4
        assert watched.result().encoded == expected.encoded
        long = ours.submit_tryon(photo, garment, mask=mask, **LONG)
        next(news for news in long.progress() if news.step)
        long.cancel()
        with pytest.raises(Cancelled):
            long.result()


@both
@pytest.mark.parametrize("key", [None, "a guess", hashlib.sha256(SHOP.encode()).hexdigest()])
def test_without_a_known_key_nothing_is_told(
    scheme: str, key: str | None, edge: str, files: Path, photo: Image.Image, mask: Image.Image
) -> None:
    with client(scheme, edge, files, key) as ours:
        with pytest.raises(AccessDenied, match="a known API key is needed"):
            ours.inpaint(photo, mask, "a coat", num_inference_steps=1)
        with pytest.raises(AccessDenied, match="a known API key is needed"):
            ours.about()
        with pytest.raises(AccessDenied):
            ours.models()
        assert isinstance(ours.health().error, AccessDenied)


def test_health_alone_needs_no_key(edge: str, files: Path) -> None:
    assert fetch(files, edge, "GET", "/v2/health/ready", {})[0] == 200
    assert fetch(files, edge, "GET", "/v2/health/live", {})[0] == 200
    assert fetch(files, edge, "GET", "/v2", {})[0] == 401
    with channel(files, edge) as opened:
        assert service_pb2_grpc.GRPCInferenceServiceStub(opened).ServerReady(pb.ServerReadyRequest()).ready


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/unet/infer"),
        ("POST", "/v2/models/preprocess/infer"),
        ("POST", "/v2/models/denoise/generate"),
        ("POST", "/v2/models/tryon/../unet/infer"),
        ("POST", "/v2/models/tryon%2F..%2Funet/infer"),
        ("POST", "//v2/models/unet/infer"),
        ("GET", "/v2/models/unet"),
        ("GET", "/v2/models/tryon/config"),
        ("GET", "/v2/models/stats"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/unet/unload"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
        ("GET", "/metrics"),
        ("GET", "/"),
    ],
)
def test_other_paths_are_refused(method: str, path: str, edge: str, files: Path) -> None:
    status, body = fetch(files, edge, method, path, bearer(SHOP), b"{}" if method == "POST" else None)
    assert status == 403
    assert "not offered here" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("method", "question"),
    [
        ("RepositoryIndex", pb.RepositoryIndexRequest()),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="unet")),
        ("ModelStatistics", pb.ModelStatisticsRequest()),
        ("ModelConfig", pb.ModelConfigRequest(name="tryon")),
        ("SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1)),
        ("TraceSetting", pb.TraceSettingRequest()),
        ("LogSettings", pb.LogSettingsRequest()),
        ("ModelMetadata", pb.ModelMetadataRequest(name="unet")),
        ("ModelReady", pb.ModelReadyRequest(name="unet")),
        ("ModelInfer", pb.ModelInferRequest(model_name="unet")),
    ],
)
def test_other_grpc_methods_and_models_are_refused(method: str, question: Any, edge: str, files: Path) -> None:
    with channel(files, edge) as opened:
        call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(opened), method)
        with pytest.raises(grpc.RpcError) as refusal:
            call(question, metadata=tuple(bearer(SHOP).items()))
    assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "not offered here" in refusal.value.details()


PADDING = pb.ModelInferRequest(raw_input_contents=[bytes(300_000)]).SerializeToString()
JOBS, WATCH, UNET = (pb.ModelInferRequest(model_name=name).SerializeToString() for name in ("jobs", "watch", "unet"))
LONG_TAG = b"\x8a\x80\x80\x80\x10" + UNET[1:]  # 2³² + 10, of which a reader of 32 bits keeps 10
DISGUISES = {"twice": UNET, "far behind": PADDING + UNET, "by a long tag": LONG_TAG}
"""What stands behind a public model's name."""


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_disguised_leaf_is_refused(method: str, disguise: str, edge: str, files: Path, server: Server) -> None:
    message = (JOBS if method == "ModelInfer" else WATCH) + DISGUISES[disguise]

    def sent(opened: grpc.Channel) -> tuple[grpc.StatusCode, str]:
        headers = tuple(bearer(SHOP).items())
        if method == "ModelInfer":
            with pytest.raises(grpc.RpcError) as refusal:
                opened.unary_unary(f"{SERVICE}/{method}")(message, metadata=headers)
            return refusal.value.code(), refusal.value.details()
        stream = opened.stream_stream(
            f"{SERVICE}/{method}", response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        try:
            # To its end: of one that is left at once Triton keeps the request, and its stop waits for the leaf in vain.
            (answer,) = stream(iter([message]), metadata=headers)
            return grpc.StatusCode.OK, answer.error_message
        except grpc.RpcError as error:
            return error.code(), error.details()

    with grpc.insecure_channel(netloc(server.grpc_url)) as direct:
        status, sentence = sent(direct)
        assert "unet" in sentence, "the disguise does not reach the leaf without the edge: it proves nothing"
        assert status != grpc.StatusCode.PERMISSION_DENIED
    with channel(files, edge) as opened:
        status, sentence = sent(opened)
        assert "unet" not in sentence
        # What hides beyond the first bytes ends the call in mid-upload, which gRPC takes for a cancellation. Nobody
        # asks `watch` anything that long.
        allowed = {grpc.StatusCode.PERMISSION_DENIED}
        if len(message) > 16_384:
            allowed |= {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert status in allowed


def test_nothing_paints_on_a_stream(edge: str, files: Path) -> None:
    with channel(files, edge) as opened:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(opened)
        answers = stub.ModelStreamInfer(
            iter([pb.ModelInferRequest(model_name="tryon")]), metadata=(*bearer(SHOP).items(),)
        )
        with pytest.raises(grpc.RpcError) as refusal:
            next(answers)
    assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_compressed_messages_are_refused(edge: str, files: Path, photo: Image.Image, mask: Image.Image) -> None:
    for scheme in ("grpcs", "https"):
        with client(scheme, edge, files, compression="gzip") as ours, pytest.raises(Exception, match="compressed"):
            ours.inpaint(photo, mask, "a coat", num_inference_steps=1)
    # The flag in a message's own head, where no header tells of it.
    framed = files / "framed"
    framed.write_bytes(struct.pack(">BI", 1, len(JOBS)) + JOBS)
    curl = ["curl", "-sS", "--http2", "--cacert", files / "ca.pem", "-D", "-", "--data-binary", f"@{framed}"]
    for header in (f"authorization: Bearer {SHOP}", "content-type: application/grpc", "te: trailers"):
        curl += ["-H", header]
    answer = subprocess.run(
        [*curl, f"https://{edge}{SERVICE}/ModelInfer"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "grpc-status: 12" in answer
    assert "content-type: application/grpc" in answer


@both
def test_calls_beyond_the_rate_are_refused(
    scheme: str, files: Path, server: Server, photo: Image.Image, mask: Image.Image
) -> None:
    with haproxy(files, netloc(server.http_url), netloc(server.grpc_url), EDGE_RATE=3) as address:

        def paint(key: str) -> None:
            with client(scheme, address, files, key) as ours:
                ours.inpaint(photo, mask, "a coat", num_inference_steps=1, seed=7)

        for _ in range(3):
            paint(SHOP)
        with pytest.raises(Overloaded, match="calls of a minute are spent") as refusal:
            paint(SHOP)
        assert refusal.value.retry_after == 2.0
        paint(BACK_OFFICE)


@both
def test_who_has_no_paintings_left_can_watch_cancel_and_ask(
    scheme: str, files: Path, server: Server, photo: Image.Image, mask: Image.Image
) -> None:
    with (
        haproxy(files, netloc(server.http_url), netloc(server.grpc_url), EDGE_RATE=1) as address,
        client(scheme, address, files, timeout=900) as ours,
    ):
        for _ in range(3):
            assert ours.health().ready
        long = ours.submit_inpaint(photo, mask, "a coat", **LONG)
        next(news for news in long.progress() if news.step)
        with pytest.raises(Overloaded, match="calls of a minute are spent"):
            ours.inpaint(photo, mask, "a coat", num_inference_steps=1)
        assert "tryon" in ours.health().tasks
        assert long.cancel()
        with pytest.raises(Cancelled):
            long.result()


def test_what_does_not_count_cannot_paint(edge: str, files: Path) -> None:
    """A call that was not counted, for its first name is `jobs`, has no other in it: not even a public one."""
    message = JOBS + pb.ModelInferRequest(model_name="tryon").SerializeToString()
    with channel(files, edge) as opened, pytest.raises(grpc.RpcError) as refusal:
        opened.unary_unary(f"{SERVICE}/ModelInfer")(message, metadata=tuple(bearer(SHOP).items()))
    assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def unheard(files: Path) -> Iterator[tuple[str, socket.socket]]:
    """An edge, and the listener behind it that takes no connection: one that waits there is one that got through."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        behind = f"127.0.0.1:{listener.getsockname()[1]}"
        listener.setblocking(False)
        with haproxy(files, behind, behind) as address:
            yield address, listener


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/tryon", "/v2/models/jobs/ready"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize("length", ["told", "untold"])
def test_health_and_metadata_take_no_body(
    path: str, version: str, length: str, unheard: tuple[str, socket.socket], files: Path
) -> None:
    address, listener = unheard
    body = files / "body"
    body.write_bytes(bytes(1_000_000))
    name = uuid.uuid4().hex
    with body.open("rb") as data:
        command = ["curl", "-sS", version, "--cacert", files / "ca.pem", "-X", "GET"]
        for header in (f"authorization: Bearer {SHOP}", f"dressform-route: {name}"):
            command += ["-H", header]
        command += ["-T", body if length == "told" else "-", f"https://{address}{path}"]
        # In mid-upload it does not always get to read the answer.
        subprocess.run(command, stdin=data, capture_output=True, timeout=30)
    assert [line["status"] for line in logged(files, name)] == [413]
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady"])
def test_grpc_health_takes_no_pictures(method: str, unheard: tuple[str, socket.socket], files: Path) -> None:
    address, listener = unheard
    with channel(files, address) as opened, pytest.raises(grpc.RpcError) as refusal:
        opened.unary_unary(f"{SERVICE}/{method}")(bytes([0x12, 0x80, 0x80, 0x04]) + bytes(65536), timeout=20)
    assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_one_message_makes_a_unary_call(edge: str, files: Path) -> None:
    with channel(files, edge) as opened, pytest.raises(grpc.RpcError) as refusal:
        opened.stream_unary(f"{SERVICE}/ServerReady")(iter([b"", b""]), timeout=20)
    assert refusal.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.CANCELLED)


def closed(connection: socket.socket) -> bool:
    """Whether the other side has."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_an_address_has_so_many_connections_and_the_silent_lose_theirs(files: Path, server: Server) -> None:
    settings = {"EDGE_CONNECTIONS": 8, "EDGE_SILENCE": "8s"}
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    with ExitStack() as held, haproxy(files, netloc(server.http_url), netloc(server.grpc_url), **settings) as address:
        host, port = address.split(":")

        def connect(source: str) -> socket.socket:
            return held.enter_context(socket.create_connection((host, int(port)), 10, (source, 0)))

        silent = [connect("127.0.0.1") for _ in range(12)]
        for one in silent[::2]:
            with suppress(OSError):
                one.sendall(bytes.fromhex("1603010200010001"))  # the first bytes of a handshake
        wait_until(lambda: sum(map(closed, silent)) >= 4, 7)  # those beyond the limit, before silence ends any
        with context.wrap_socket(connect("127.0.0.9"), server_hostname="127.0.0.1") as neighbour:
            neighbour.sendall(b"GET /v2/health/ready HTTP/1.1\r\nhost: edge\r\n\r\n")
            assert neighbour.recv(4096).startswith(b"HTTP/1.1 200")
        wait_until(lambda: all(map(closed, silent)), 20)
        assert fetch(files, address, "GET", "/v2/health/ready", {})[0] == 200


PATIENCE = 3.0
"""Seconds of silence: three times what the edge of this test allows the client."""


class SlowHTTP(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        time.sleep(PATIENCE)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class SlowGRPC(service_pb2_grpc.GRPCInferenceServiceServicer):
    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        time.sleep(PATIENCE)
        return pb.ModelInferResponse(model_name=request.model_name)

    def ModelStreamInfer(
        self, questions: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        next(questions)
        time.sleep(PATIENCE)
        yield pb.ModelStreamInferResponse(error_message="the end")


def test_who_waits_is_not_silent(files: Path) -> None:
    metadata = tuple(bearer(SHOP).items())
    servicer = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(SlowGRPC(), servicer)
    by_grpc = f"127.0.0.1:{servicer.add_insecure_port('127.0.0.1:0')}"
    servicer.start()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowHTTP) as slow, ThreadPoolExecutor(3) as pool:
        threading.Thread(target=slow.serve_forever, daemon=True).start()
        by_http = f"127.0.0.1:{slow.server_port}"
        with haproxy(files, by_http, by_grpc, EDGE_SILENCE="1s") as address, channel(files, address) as opened:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(opened)
            posted = pool.submit(fetch, files, address, "POST", "/v2/models/tryon/infer", bearer(SHOP), b"{}")
            painted = pool.submit(stub.ModelInfer, pb.ModelInferRequest(model_name="tryon"), metadata=metadata)
            question = iter([pb.ModelInferRequest(model_name="watch")])
            watched = pool.submit(lambda: next(stub.ModelStreamInfer(question, metadata=metadata)))
            assert posted.result()[0] == 200
            assert painted.result().model_name == "tryon"
            assert watched.result().error_message == "the end"
        slow.shutdown()
    servicer.stop(None)


@both
def test_a_large_request_is_refused(
    scheme: str, files: Path, server: Server, photo: Image.Image, mask: Image.Image
) -> None:
    small = haproxy(files, netloc(server.http_url), netloc(server.grpc_url), EDGE_BODY=100_000)
    with small as address, client(scheme, address, files) as ours:
        ours.inpaint(photo.resize((40, 40)), mask.resize((40, 40)), "a coat", num_inference_steps=1)
        noise = Image.effect_noise((700, 700), 90).convert("RGB")
        with pytest.raises(InvalidRequest, match="larger than this edge takes"):
            ours.inpaint(noise, mask.resize(noise.size), "a coat", num_inference_steps=1)


def test_the_server_learns_the_client_and_not_the_key(files: Path) -> None:
    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        with haproxy(files, f"127.0.0.1:{echo.server_port}", "127.0.0.1:1") as address:
            headers = {**bearer(SHOP), "Dressform-Client": "somebody else", "dressform-route": "an id"}
            status, body = fetch(files, address, "GET", "/v2", headers)
            assert status == 200
            seen = json.loads(body)
            assert seen["dressform-client"] == "shop"
            assert seen["dressform-route"] == "an id"
            assert "authorization" not in seen
            _, body = fetch(files, address, "GET", "/v2/health/ready", {"dressform-client": "somebody else"})
            assert "dressform-client" not in json.loads(body)
        echo.shutdown()


@both
def test_an_absent_server_is_told_as_such(scheme: str, files: Path, photo: Image.Image, mask: Image.Image) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    unavailable = pytest.raises(ServerUnavailable, match="the server does not answer")
    with haproxy(files, nobody, nobody) as address, client(scheme, address, files) as ours, unavailable:
        ours.inpaint(photo, mask, "a coat", num_inference_steps=1)


def logged(files: Path, name: str) -> list[dict[str, Any]]:
    """What the edge's log says of the request ``name``; it is written after the answer."""
    found: list[dict[str, Any]] = []

    def told() -> bool:
        lines = (files / "haproxy.log").read_text().splitlines()
        found[:] = [json.loads(line) for line in lines if f'"{name[:8]}"' in line]
        return bool(found)

    wait_until(told, 10)
    return found


def test_the_log_names_clients_and_neither_keys_nor_whole_ids(edge: str, files: Path) -> None:
    fetch(files, edge, "GET", "/v2", {**bearer(SHOP), "dressform-route": "an-id-to-be-found"})
    told = logged(files, "an-id-to-be-found")
    assert [(line["client"], line["path"], line["status"]) for line in told] == [("shop", "/v2", 200)]
    log = (files / "haproxy.log").read_text()
    assert not any(word in log for word in (SHOP, BACK_OFFICE, "Bearer", "to-be-found"))
