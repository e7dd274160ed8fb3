"""The real Triton on a repository of tiny graphs: it starts, answers, refuses, drains, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from dressform_server import Server, StartFailed
from dressform_server import ports as ports_module
from dressform_server import server as server_module
from e2e.launching import gone, launch, launched_ready, segments

Array = NDArray[Any]
CPU = "instance_group [ { kind: KIND_CPU count: 1 } ]"
SHIFT = f"""
backend: "onnxruntime"
max_batch_size: 8
input [
  {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "t" data_type: TYPE_FP32 dims: [ 1 ] reshape {{ shape: [ ] }} }}
]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }}, {{ name: "twice" data_type: TYPE_FP32 dims: [ -1 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 300000 preferred_batch_size: [ 8 ] }}
{CPU}
"""
PICK = f"""
backend: "onnxruntime"
max_batch_size: 0
input [ {{ name: "index" data_type: TYPE_INT64 dims: [ -1 ] }} ]
output [ {{ name: "value" data_type: TYPE_FP32 dims: [ -1 ] }} ]
{CPU}
"""


def write(repository: Path, name: str, config: str, graph: onnx.GraphProto) -> None:
    """Write one model in Triton's layout."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), version / "model.onnx"
    )
    (version.parent / "config.pbtxt").write_text(config)


def write_repository(repository: Path, shift: str = SHIFT) -> Path:
    """``shift`` (y = x + t by row, twice = 2 y) and ``pick`` (value = [10, 20, 30][index], no batching)."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Unsqueeze", ["t", "last"], ["column"]),
        helper.make_node("Add", ["x", "column"], ["y"]),
        helper.make_node("Add", ["y", "y"], ["twice"]),
    ]
    matrix, rows = ["rows", "width"], ["rows"]
    inputs = [value("x", TensorProto.FLOAT, matrix), value("t", TensorProto.FLOAT, rows)]
    outputs = [value("y", TensorProto.FLOAT, matrix), value("twice", TensorProto.FLOAT, matrix)]
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    write(repository, "shift", shift, helper.make_graph(nodes, "shift", inputs, outputs, [last]))
    gather = [helper.make_node("Gather", ["table", "index"], ["value"])]
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [10, 20, 30])
    index, picked = value("index", TensorProto.INT64, ["n"]), value("value", TensorProto.FLOAT, ["n"])
    write(repository, "pick", PICK, helper.make_graph(gather, "pick", [index], [picked], [table]))
    (repository / "manifest.json").write_text(
        json.dumps({"format": 1, "engine": "onnxruntime", "engines": {"onnxruntime": {"backend": "onnxruntime"}}})
    )
    return repository


def free_server(repository: Path, **options: Any) -> Server:
    """A server on free ports."""
    return Server(repository, http_port=0, grpc_port=0, metrics_port=0, **options)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of `write_repository`."""
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    """A ready server of it."""
    with free_server(repository) as running:
        running.wait_ready(60)
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[grpc.InferenceServerClient]:
    """A gRPC client of the server."""
    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as connected:
        yield connected


def shift_inputs(protocol: object, x: Array, t: Array) -> list[object]:
    """The inputs of ``shift`` for tritonclient's ``grpc`` or ``http``."""
    inputs = []
    for name, array in (("x", x), ("t", t.reshape(-1, 1))):
        inputs.append(protocol.InferInput(name, array.shape, "FP32"))  # type: ignore[attr-defined]
        inputs[-1].set_data_from_numpy(array)
    return inputs


def shift_data(rows: int, width: int) -> tuple[Array, Array]:
    """Numbers that differ in every row."""
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width), np.arange(rows, dtype=np.float32) * 100


def pick(client: grpc.InferenceServerClient, index: list[int]) -> Array:
    """Call ``pick``."""
    wanted = grpc.InferInput("index", [len(index)], "INT64")
    wanted.set_data_from_numpy(np.array(index, np.int64))
    answer: Array = client.infer("pick", [wanted]).as_numpy("value")
    return answer


@pytest.mark.parametrize("protocol", [grpc, http], ids=["grpc", "http"])
def test_both_protocols_answer(server: Server, protocol: object) -> None:
    x, t = shift_data(3, 4)
    address = (server.grpc_url if protocol is grpc else server.http_url).partition("://")[2]
    with protocol.InferenceServerClient(address) as client:  # type: ignore[attr-defined]
        answer = client.infer("shift", shift_inputs(protocol, x, t))
    np.testing.assert_array_equal(answer.as_numpy("y"), x + t[:, None])
    np.testing.assert_array_equal(answer.as_numpy("twice"), 2 * (x + t[:, None]))


def test_concurrent_requests_share_a_call_and_get_their_own_rows(client: grpc.InferenceServerClient) -> None:
    before = client.get_inference_statistics("shift").model_stats[0]
    data = [shift_data(rows, width) for rows, width in ((1, 4), (2, 4), (3, 4), (2, 4))]
    with ThreadPoolExecutor(len(data)) as pool:
        answers = list(pool.map(lambda d: client.infer("shift", shift_inputs(grpc, *d)), data))
    for (x, t), answer in zip(data, answers, strict=True):
        np.testing.assert_array_equal(answer.as_numpy("y"), x + t[:, None])
    after = client.get_inference_statistics("shift").model_stats[0]
    assert after.inference_count - before.inference_count == 8  # rows
    assert after.execution_count - before.execution_count < len(data)


def test_only_the_outputs_asked_for_come(client: grpc.InferenceServerClient) -> None:
    x, t = shift_data(1, 2)
    answer = client.infer("shift", shift_inputs(grpc, x, t), outputs=[grpc.InferRequestedOutput("twice")])
    assert [output.name for output in answer.get_response().outputs] == ["twice"]
    np.testing.assert_array_equal(answer.as_numpy("twice"), 2 * (x + t[:, None]))


def test_a_failing_call_fails_alone(client: grpc.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"ONNX Runtime: .*idx=99"):
        pick(client, [0, 99])
    np.testing.assert_array_equal(pick(client, [2, 0]), [30, 10])


def test_metrics_are_served(server: Server) -> None:
    with http.InferenceServerClient(server.metrics_url.removeprefix("http://").removesuffix("/metrics")) as client:
        answer = client._get("metrics", None, None)
    assert b"nv_inference_request_success" in answer.read()


@pytest.mark.parametrize(
    ("there", "instead", "words"),
    [
        ("TYPE_FP32 dims: [ -1 ] }", "TYPE_FP16 dims: [ -1 ] }", ["float16", "float", "'x'"]),
        ("reshape { shape: [ ] }", "", ["'t'", "[-1, 1]", "[-1]"]),
    ],
)
def test_a_configuration_that_does_not_fit_ends_the_start(
    tmp_path: Path, there: str, instead: str, words: list[str]
) -> None:
    assert there in SHIFT
    bad = write_repository(tmp_path, SHIFT.replace(there, instead, 1))
    with pytest.raises(StartFailed) as refusal, free_server(bad) as server:
        server.wait_ready(60)
    assert all(word in str(refusal.value) for word in ["model shift", *words]), refusal.value
    assert "model pick" not in str(refusal.value)


def test_a_taken_port_is_named(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        launched = launch(repository, "--grpc-port", str(port))
        assert launched.wait(20) == 1
    assert f"grpc port {port} on 127.0.0.1 is in use" in capfd.readouterr().err


def test_a_free_port_that_was_lost_is_chosen_again(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = ports_module.chosen_ports
    with socket.create_server(("127.0.0.1", 0)) as other:
        lost = {"http": other.getsockname()[1]}

        def unlucky(host: str, wanted: dict[str, int]) -> dict[str, int]:
            ports = choose(host, wanted) | lost
            lost.clear()
            return ports

        monkeypatch.setattr(server_module, "chosen_ports", unlucky)
        with free_server(repository) as server:
            server.wait_ready(60)
            assert server.http_url != f"http://127.0.0.1:{other.getsockname()[1]}"


def test_sigterm_leaves_nothing(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    launched, _ = launched_ready(repository, capfd)
    family = psutil.Process(launched.pid).children(recursive=True)
    assert len(family) == 3  # Triton and a stub for each model
    assert len(segments(launched)) == 2
    launched.send_signal(signal.SIGTERM)
    assert launched.wait(20) == 0
    assert gone(family, within=1)
    assert not segments(launched)
    assert "stopped" in capfd.readouterr().err


def test_a_killed_launcher_takes_triton_along(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    launched, _ = launched_ready(repository, capfd)
    family = psutil.Process(launched.pid).children(recursive=True)
    launched.kill()
    launched.wait(5)
    assert gone(family, within=10)
    assert not segments(launched)


def test_a_killed_triton_leaves_nothing_and_is_noticed(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    launched, _ = launched_ready(repository, capfd, "--no-supervise")
    family = psutil.Process(launched.pid).children(recursive=True)
    next(process for process in family if process.name() == "tritonserver").kill()
    assert launched.wait(10) == 1
    assert gone(family, within=1)
    assert not segments(launched)
    assert "Triton ended by itself with status -9" in capfd.readouterr().err
