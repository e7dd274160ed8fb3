"""Two dozen requests of every kind in random arrival: each survivor right, each other one a typed error, nothing left.

One latent width is poisoned: its UNet calls fail.
"""

from __future__ import annotations

import random
import re
import shutil
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dressform import Cancelled, Client, DeadlineExceeded, DressformError, ServerError
from dressform_server import Server
from e2e.conftest import differences, run_in_python
from e2e.window import Window
from waiting import wait_until

POISONED_WIDTH = 88
"""Pixels; requests of this width fail in the UNet."""

POISON = '''
import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The exported UNet, but for latents of width WIDTH."""

    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")), options)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        names = ("sample", "timestep", "encoder_hidden_states")
        feed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names}
        if feed["sample"].shape[3] == WIDTH:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("this width is poisoned"))
        feed["timestep"] = feed["timestep"].reshape(-1)
        return pb_utils.InferenceResponse([pb_utils.Tensor("out_sample", self.session.run(None, feed)[0])])
'''

SHAPES = [(64, 64), (72, 104), (96, 64)]
SOLVERS = ["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "pndm"]


@pytest.fixture(scope="module")
def poisoned(tiny_tryon_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("poisoned") / "repository"
    shutil.copytree(tiny_tryon_repository, repository)
    config = repository / "unet" / "config.pbtxt"
    run_in_python(config)
    (repository / "unet" / "1" / "model.py").write_text(POISON.replace("== WIDTH", f"== {POISONED_WIDTH // 8}"))
    log = tmp_path_factory.mktemp("triton") / "poisoned.log"
    with Server(repository, http_port=0, grpc_port=0, metrics_port=0, log=log) as running:
        running.wait_ready(120)
        yield running


def requests() -> list[dict[str, Any]]:
    """25 requests: 18 good ones of all solvers, 3 to be cancelled, 3 with hopeless deadlines, 1 poisoned."""
    draw = random.Random(7)
    made: list[dict[str, Any]] = []
    for i in range(18):
        height, width = SHAPES[i % 3]
        steps = draw.randint(4, 50)
        guidance = draw.choice([1.0, 3.0, 7.5])
        made.append({"height": height, "width": width, "num_inference_steps": steps, "guidance_scale": guidance})
        made[-1] |= {"solver": SOLVERS[i % 8], "strength": draw.choice([1.0, 0.6]), "seed": i, "kind": "good"}
    long = {"num_inference_steps": 150, "num_images": 4}  # far longer than the deadlines, on any machine
    made += [long | {"seed": 50 + 10 * i, "height": 96, "width": 64, "kind": "cancel"} for i in range(3)]
    made += [long | {"seed": 80 + 10 * i, "deadline_ms": 400, "kind": "late"} for i in range(2)]
    made += [long | {"seed": 100, "deadline_ms": 1, "kind": "late"}]
    made += [{"num_inference_steps": 20, "width": POISONED_WIDTH, "seed": 110, "kind": "poison"}]
    draw.shuffle(made)
    return made


def cancel(server: Server, request_id: str) -> None:
    """Cancel the request, once it has made a step."""
    window = Window(server)
    wait_until(window.stepping(request_id), 60)
    window.jobs("cancel", id=request_id)


TOLD_SECONDS = 1.0
"""Stages tell Triton twice as often what they counted."""


def metrics(server: Server) -> dict[str, float]:
    """Our own metrics, by name and labels."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (re.fullmatch(r"(dressform_\w+(?:\{.*\})?) (\S+)", line) for line in lines)
    return {match[1]: float(match[2]) for match in found if match}


def settled_metrics(server: Server) -> dict[str, float]:
    """Our own metrics, once no job is active and no counter grows any more."""

    def counted() -> float:
        return sum(value for name, value in now.items() if re.match(r"\w+_(total|count)\b", name))

    end = time.monotonic() + 60
    now = metrics(server)
    before = -1.0
    while counted() != before or now['dressform_jobs{state="active"}']:
        assert time.monotonic() < end, now
        before = counted()
        time.sleep(TOLD_SECONDS)
        now = metrics(server)
    return now


def test_mixed_requests_in_random_arrival(poisoned: Server, photo: Image.Image, mask: Image.Image) -> None:
    made = requests()
    answers: dict[int, Any] = {}
    with Client(poisoned.grpc_url, timeout=300, retries=0) as client:

        def send(options: dict[str, Any], request_id: str | None = None) -> Any:
            plain = {name: value for name, value in options.items() if name != "kind"}
            try:
                return client.inpaint(photo, mask, f"number {options['seed']}", request_id=request_id, **plain)
            except DressformError as error:
                return error

        alone = {one["seed"]: send(one) for one in made if one["kind"] == "good"}
        before = settled_metrics(poisoned)
        arrivals = random.Random(3)
        with ThreadPoolExecutor(2 * len(made)) as pool:
            futures, cancels = {}, []
            for one in made:
                request_id = uuid.uuid4().hex
                futures[one["seed"]] = pool.submit(send, one, request_id)
                if one["kind"] == "cancel":
                    cancels.append(pool.submit(cancel, poisoned, request_id))
                time.sleep(arrivals.expovariate(20))
            answers = {seed: future.result() for seed, future in futures.items()}
            for cancelled in cancels:
                cancelled.result()
    check_answers(made, answers, alone)
    check_accounts(poisoned, before, answers, made)


def check_answers(made: list[dict[str, Any]], answers: dict[int, Any], alone: dict[int, Any]) -> None:
    expected = {"cancel": Cancelled, "late": DeadlineExceeded, "poison": ServerError}
    for one in made:
        answer = answers[one["seed"]]
        if one["kind"] == "good":
            assert not isinstance(answer, Exception), f"{one}: {answer}"
            apart = differences(answer.image, alone[one["seed"]].image)
            assert apart.max() <= 1, one
            assert (apart > 0).mean() <= 0.001, one
        else:
            assert isinstance(answer, expected[one["kind"]]), f"{one}: {answer!r}"
            if one["kind"] == "poison":
                assert "this width is poisoned" in str(answer)
    assert max(max(answer.info["batch_sizes"]) for answer in answers.values() if not isinstance(answer, Exception)) > 2


def check_accounts(
    server: Server, before: dict[str, float], answers: dict[int, Any], made: list[dict[str, Any]]
) -> None:
    now = settled_metrics(server)
    grown = Counter({name: value - before.get(name, 0) for name, value in now.items()})
    ended = {name: value for name, value in grown.items() if name.startswith("dressform_jobs_ended_total") and value}
    assert sum(ended.values()) == grown["dressform_jobs_admitted_total"]
    refused = sum(value for name, value in grown.items() if name.startswith("dressform_requests_refused_total"))
    assert refused >= 1, "a deadline of 1 ms must be refused before any graph has run"
    assert grown['dressform_jobs_ended_total{outcome="finished",reason=""}'] == 18
    assert grown['dressform_jobs_ended_total{outcome="failed",reason="engine"}'] == 1
    good = [answer for answer in answers.values() if not isinstance(answer, Exception)]
    assert grown["dressform_job_seconds_count"] == len(good) == 18
    assert grown["dressform_steps_total"] >= sum(answer.info["steps"] for answer in good)
    calls = {name: value for name, value in grown.items() if name.startswith("dressform_step_seconds_count") and value}
    assert sum(calls.values()) == grown["dressform_unet_rows_count"]
    assert len(calls) > 1, "calls of one and of several jobs are told apart by their rows"
    assert grown["dressform_unet_rows_sum"] >= sum(answer.info["unet_rows"] for answer in good)
    assert now['dressform_jobs{state="active"}'] == now['dressform_jobs{state="waiting"}'] == 0
    assert Window(server).jobs("list") == []
