"""Stand-ins for the server in the client's tests: a transport in memory, and KServe servers on both protocols.

The servers keep what arrived on the wire (a ``ModelInferRequest``, or the JSON header and the bytes after it), so that
tests look at that and not at a library's innards.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dressform.requests import Request
from dressform.transports import Tell


def png(size: tuple[int, int] = (8, 6), colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """An encoded picture of one colour, ``size`` as (width, height)."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    """``array`` in the .npy format."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def answer(images: list[bytes], seeds: list[int], info: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Output tensors as a transport gives them."""
    return {
        "images": np.array([images], dtype=object),
        "seeds": np.array([seeds], dtype=np.int64),
        "mask_used": np.array([[png()]], dtype=object),
        "info": np.array([[json.dumps(info or {}).encode()]], dtype=object),
    }


@dataclass
class FakeTransport:
    """Keeps the requests. The n-th answer is one picture of size (n, 5) for each of ``num_images``."""

    ready: bool = True
    served: tuple[str, ...] = ("inpaint", "tryon")
    error: Exception | None = None
    reply: Callable[[Request], dict[str, np.ndarray]] | None = None
    requests: list[Request] = field(default_factory=list)
    closed: bool = False

    def infer(self, request: Request) -> dict[str, np.ndarray]:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        if self.reply is not None:
            return self.reply(request)
        count = int(request.parameters.get("num_images", 1))
        first = int(request.parameters.get("seed", 100))
        return answer([png((len(self.requests), 5))] * count, [first + i for i in range(count)])

    def server_ready(self, timeout: float) -> bool:
        if self.error is not None:
            raise self.error
        return self.ready

    def model_ready(self, model: str, timeout: float) -> bool:
        return model in self.served

    def watch(self, request_id: str, tell: Tell) -> None:
        tell(None)

    def metadata(self, timeout: float) -> dict[str, Any]:
        return {"name": "triton", "version": "2.51.0"}

    def models(self, timeout: float) -> list[dict[str, Any]]:
        return [{"name": model, "version": "1", "state": "READY"} for model in self.served]

    def statistics(self, timeout: float) -> list[dict[str, Any]]:
        return []

    def close(self) -> None:
        self.closed = True


@dataclass
class Arrived:
    """What a server saw of one request: parameters in their wire types, inputs by name."""

    model: str
    id: str
    parameters: dict[str, tuple[str, Any]]
    inputs: dict[str, bytes]
    shapes: dict[str, tuple[str, list[int]]]


@dataclass
class Kserve:
    """A server of one protocol. ``fault`` (status, message) is answered instead of pictures, ``hold`` delays them."""

    url: str = ""
    ready: bool = True
    fault: tuple[str, str] | None = None
    hold: threading.Event | None = None
    arrived: list[Arrived] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)

    def outputs(self, request: Arrived) -> dict[str, np.ndarray]:
        self.arrived.append(request)
        if self.hold is not None:
            self.hold.wait(10)
        if request.model == "mask":
            info = json.dumps({"category": request.parameters["category"][1]}).encode()
            return {"mask_used": np.array([[png()]], object), "info": np.array([[info]], object)}
        if request.model == "jobs":
            return {"jobs": np.array([[b"{}"]], object)}
        # The picture tells whose answer it is.
        picture = request.inputs.get("image") or request.inputs["person"]
        info = {"batch_sizes": [2, 2], "milliseconds": {"wait": 1.5}}
        return answer([picture], [int(request.parameters["seed"][1])], info)


def unpacked(raw: bytes) -> bytes:
    """The one element of a serialized BYTES tensor."""
    (length,) = struct.unpack_from("<I", raw)
    assert length == len(raw) - 4
    return raw[4:]


def packed(array: np.ndarray) -> bytes:
    """An output tensor, serialized."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(data)) + data for data in array.reshape(-1))


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, state: Kserve) -> None:
        self.state = state

    def ServerReady(self, _request, _context):
        return pb.ServerReadyResponse(ready=self.state.ready)

    def ServerMetadata(self, _request, _context):
        return pb.ServerMetadataResponse(name="triton", version="2.51.0")

    def ModelReady(self, request, _context):
        return pb.ModelReadyResponse(ready=request.name in ("inpaint", "tryon"))

    def ModelInfer(self, request, context):
        self.state.connections.add(context.peer())
        parameters = {}
        for name, parameter in request.parameters.items():
            kind = parameter.WhichOneof("parameter_choice")
            parameters[name] = (kind, getattr(parameter, kind))
        raw = zip(request.inputs, request.raw_input_contents, strict=True)
        seen = Arrived(
            request.model_name,
            request.id,
            parameters,
            {tensor.name: unpacked(data) for tensor, data in raw},
            {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in request.inputs},
        )
        if self.state.fault is not None:
            status, message = self.state.fault
            context.abort(getattr(grpc.StatusCode, status), message)
        reply = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, array in self.state.outputs(seen).items():
            datatype = "BYTES" if array.dtype == object else "INT64"
            reply.outputs.append(
                pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=array.shape)
            )
            reply.raw_output_contents.append(packed(array))
        return reply


@contextmanager
def grpc_server(state: Kserve, port: int = 0) -> Iterator[Kserve]:
    """A KServe server over gRPC, on a free port."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(40), options=options)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(state), server)
    state.url = f"grpc://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield state
    finally:
        server.stop(0).wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v2":
            self._send(200, b'{"name": "triton", "version": "2.51.0"}')
            return
        known = self.path in ("/v2/models/inpaint/ready", "/v2/models/tryon/ready")
        self._send(200 if known or (self.path == "/v2/health/ready" and self.server.state.ready) else 400, b"")

    def do_POST(self) -> None:
        state = self.server.state
        state.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if state.fault is not None:
            status, message = state.fault
            self._send(int(status), message.encode())
            return
        length = int(self.headers["Inference-Header-Content-Length"])
        header, offset = json.loads(body[:length]), length
        assert header["parameters"].pop("binary_data_output") is True
        inputs = {}
        for tensor in header["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            inputs[tensor["name"]] = unpacked(body[offset : offset + size])
            offset += size
        seen = Arrived(
            self.path.split("/")[3],
            header["id"],
            {name: (type(value).__name__, value) for name, value in header["parameters"].items()},
            inputs,
            {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in header["inputs"]},
        )
        blobs, described = b"", []
        for name, array in state.outputs(seen).items():
            blob = packed(array)
            blobs += blob
            kind = "BYTES" if array.dtype == object else "INT64"
            size = {"binary_data_size": len(blob)}
            described.append({"name": name, "datatype": kind, "shape": array.shape, "parameters": size})
        head = json.dumps({"id": header["id"], "outputs": described}).encode()
        self._send(200, head + blobs, {"Inference-Header-Content-Length": str(len(head))})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    state: Kserve

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # clients hang up as they please

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.open):  # a server that ends takes its idle connections along
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def http_server(state: Kserve, port: int = 0) -> Iterator[Kserve]:
    """A KServe server over HTTP with binary tensors, on a free port."""
    server = _HttpServer(("127.0.0.1", port), _Handler)
    server.state = state
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


SERVERS = {"grpc": grpc_server, "http": http_server}
