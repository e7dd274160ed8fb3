"""Users by Locust: the mix they draw from, and whole runs: a small KServe server, nobody there, two workers."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="needs the extra bench")

from dressform import About  # noqa: E402
from dressform_bench import results  # noqa: E402
from dressform_bench.load.memory import process_name  # noqa: E402
from dressform_bench.load.mix import FOLDER, Kind, Mix  # noqa: E402
from unit.client_fakes import Kserve, grpc_server, http_server  # noqa: E402

MIX = """
think_seconds: [0, 0.05]
requests:
  - {name: short, task: tryon, weight: 3, options: {num_inference_steps: 4}}
  - {name: words, task: inpaint, weight: 1, prompt: a hat, options: {num_inference_steps: [5, 6]}}
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    path = tmp_path / "mix.yaml"
    path.write_text(MIX)
    return path


def load(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dressform_bench.load", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def ended(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """The record, and all on stderr."""
    out, err = process.communicate(timeout=90)
    assert "Traceback" not in err, err
    return json.loads(out.splitlines()[-1]), err


# Two users for six seconds: a busy machine takes most of them to start.
TWO_USERS = ("--headless", "-u", 2, "-r", 2, "-t", "6s", "--sample-seconds", 1)


def test_users_of_both_protocols_ask_what_the_mix_says(mix: Path, tmp_path: Path) -> None:
    with grpc_server(Kserve()) as grpc, http_server(Kserve()) as http:
        out = tmp_path / "load.jsonl"
        process = load("--grpc", grpc.url, "--http", http.url, "--mix", mix, *TWO_USERS, "--out", out)
        record, log = ended(process)
    assert process.returncode == 0, log
    assert results.read(tmp_path) == [record]
    assert record["summary"]["failures"] == 0
    kinds = {(row["protocol"], row["name"]): row["requests"] for row in record["by_name"]}
    assert {protocol for protocol, _ in kinds} == {"grpc", "http"}
    sent = [request for server in (grpc, http) for request in server.arrived if request.model != "jobs"]
    assert 0 <= len(sent) - record["summary"]["requests"] <= 2  # the last ones were in flight
    assert sum(kinds.values()) == record["summary"]["requests"] > 2
    steps = Counter(request.parameters["num_inference_steps"][1] for request in sent)
    assert steps.keys() == {4, 5, 6} or sum(steps.values()) < 30
    assert all(("category" in request.parameters) == (request.model == "tryon") for request in sent)
    assert len({request.parameters["seed"] for request in sent}) == len(sent)
    assert (record["summary"]["batch"], record["summary"]["waiting_ms"]) == (2, 1.5)
    assert [row["users"] for row in record["series"]][-1] == 2
    assert sum(row["requests_per_second"] for row in record["series"]) > 0
    assert "waiting (ms)" in log


def test_failures_are_counted_and_the_run_ends(mix: Path) -> None:
    process = load("--grpc", "grpc://127.0.0.1:1", "--mix", mix, *TWO_USERS, "GrpcUser")
    record, _ = ended(process)
    assert process.returncode == 1
    assert record["summary"]["requests"] == record["summary"]["failures"]
    assert 2 <= record["summary"]["failures"] <= 14  # users pause a second after a failure
    assert "dressform serve" in record["errors"][0]["error"]
    assert {row["p50_seconds"] for row in record["by_name"]} == {None}, "no answer, no time"


def test_two_workers_share_the_users(mix: Path) -> None:
    with grpc_server(Kserve()) as server:
        addresses = ("--grpc", server.url, "--mix", mix)
        port = ("--master-port", 15_557 + os.getpid() % 10_000)
        master = load(
            "--master", "--expect-workers", 2, "--master-bind-port", port[1], *addresses, *TWO_USERS, "GrpcUser"
        )
        workers = [load("--worker", *port, *addresses, "GrpcUser") for _ in range(2)]
        record, log = ended(master)
        for worker in workers:
            worker.communicate(timeout=60)
    assert master.returncode == 0, log
    assert record["summary"]["failures"] == 0
    assert record["summary"]["batch"] == 2, "what workers measured at the server reaches the master"
    sent = [request for request in server.arrived if request.model != "jobs"]
    assert 0 <= len(sent) - record["summary"]["requests"] <= 4
    assert len({request.parameters["seed"] for request in sent}) == len(sent), "no worker repeats another"
    assert [worker.returncode for worker in workers] == [0, 0]


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("*.yaml")])
def test_our_mixes_are_right(name: str) -> None:
    mix = Mix.read(name)
    chance = random.Random(0)
    drawn = Counter(mix.drawn(chance).name for _ in range(4000))
    whole = sum(kind.weight for kind in mix.kinds)
    assert all(abs(drawn[kind.name] / 4000 - kind.weight / whole) < 0.03 for kind in mix.kinds)
    for kind in mix.kinds:
        for width, height in ((96, 128), (512, 512)):  # the shipped model's, and Stable Diffusion's
            sizes = {sized(kind, chance, width, height) for _ in range(200)}
            assert len(sizes) == len(kind.sizes) > 1
            assert (width, height) in sizes
            assert all(64 <= side <= 1024 and side % 8 == 0 for size in sizes for side in size)


def sized(kind: Kind, chance: random.Random, width: int, height: int) -> tuple[int, int]:
    """Width and height of a request to an export of that size."""
    about = About(False, False, height, width, 64, 1024, 8, 20, "ddim", False)
    options = kind.drawn(chance, lambda: about)
    return options["width"], options["height"]


def test_sizes_come_by_their_weights_in_multiples_of_the_export_s_own() -> None:
    kind = Kind("a", "tryon", 1, sizes=[[1, 1, 3], [1.3, 0.5]])
    chance = random.Random(0)
    drawn = Counter(sized(kind, chance, 96, 128) for _ in range(2000))
    assert drawn.keys() == {(96, 128), (128, 64)}, "124.8 is no multiple of 8"
    assert drawn[96, 128] / 2000 == pytest.approx(0.75, abs=0.03)


def test_processes_have_the_names_of_their_models() -> None:
    stub = ["/opt/triton_python_backend_stub", "/repository/denoise/1/model.py", "triton_python_backend_shm_region_1"]
    assert process_name([*stub, "67108864", "1048576", "2641", "/opt", "336", "denoise_0_0", "DEFAULT"]) == "denoise"
    assert (
        process_name([*stub, "67108864", "1048576", "2641", "/opt", "336", "vae_decoder_0_1", "DEFAULT"])
        == "vae_decoder"
    )
    assert process_name(["/opt/bin/tritonserver", "--model-repository=/x"]) == "tritonserver"
    assert process_name([]) == "ended"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "a mix has think_seconds and requests"),
        ("{requests: []}", "requests must be a list of one or more"),
        ("{thinking: 1}", "not thinking"),
        ("{think_seconds: [2, 1], requests: [{}]}", "think_seconds must be two numbers"),
        ("requests: [{name: a, task: sing, weight: 1}]", "task must be inpaint or tryon, not 'sing'"),
        ("requests: [{name: a, task: tryon, weight: 0}]", "weight must be above 0, not 0"),
        ("requests: [{name: a, task: inpaint, weight: 1}]", "'a' is an inpaint without a prompt"),
        ("requests: [{name: a, task: tryon, weight: 1, options: {steps: 3}}]", "option 'steps' is none of"),
        ("requests: [{name: a, task: tryon, weight: 1, options: {seed: [3, 2]}}]", "seed must be a value, or two"),
        ("requests: [{name: a, colour: red}]", "colour"),
        ("requests: [{name: a, task: tryon, weight: 1, sizes: 2}]", "sizes must be a list, not 2"),
        ("requests: [{name: a, task: tryon, weight: 1, sizes: [[1]]}]", "a size must be .WIDTH, HEIGHT. or"),
        ("requests: [{name: a, task: tryon, weight: 1, sizes: [[1, 0]]}]", "multiples of the export's, not .1, 0."),
        ("requests: [{name: a, task: tryon, weight: 1, sizes: [[1, 1, -1]]}]", "a size must be"),
        (
            "requests: [{name: a, task: tryon, weight: 1, sizes: [[1, 1]], options: {height: 64}}]",
            "'a' has sizes and the option height",
        ),
        (
            "requests: [{name: a, task: tryon, weight: 1, options: {width: [64, 96]}}]",
            "width must be a value; what varies stands in sizes",
        ),
        ("requests: {", "mix.yaml"),
    ],
)
def test_a_mix_that_is_wrong_is_told(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        Mix.read(str(path))
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="must be a file, or one of inpaint, shop, not 'nowhere'"):
        Mix.read("nowhere")


def test_ctrl_c_keeps_the_record(mix: Path, tmp_path: Path) -> None:
    out, server = tmp_path / "load.jsonl", Kserve()
    words = ("--headless", "-u", 2, "-r", 2, "--sample-seconds", 1, "--mix", mix, "--out", out, "HttpUser")
    with http_server(server) as http:
        command = [sys.executable, "-m", "dressform_bench.load", "--http", http.url, *map(str, words)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT, start_new_session=True, text=True)
        end = time.monotonic() + 60
        while len(server.arrived) < 20:
            assert time.monotonic() < end
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, log = process.communicate(timeout=60)  # with the call in which Locust stopped a user
    record = json.loads(out.read_text())
    assert "Response time percentiles" in log
    assert record["summary"]["requests"] >= 18
    assert record["summary"]["requests_per_second"] > 0


def test_a_mix_that_is_not_there_leaves_no_record(tmp_path: Path) -> None:
    out = tmp_path / "load.jsonl"
    process = load("--mix", tmp_path / "none.yaml", *TWO_USERS, "--out", out)
    _, log = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "none.yaml" in log
    assert not out.exists()
