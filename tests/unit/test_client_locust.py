"""The Locust file, run as its docstring says, against a small KServe server and against nobody."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unit.client_fakes import Kserve, grpc_server

pytestmark = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="needs the extra bench")
LOCUSTFILE = Path(__file__).parents[2] / "benchmarks/dressform_bench/locustfile.py"


def locust(host: str, *words: str) -> tuple[dict[str, float], str]:
    """Two users for six seconds (a busy machine takes most of them to start): the last line, and all on stderr."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "-u", "2", "-r", "2", "-t", "6s"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [*command, "--host", host, *words], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_requests_are_sent_and_counted():
    with grpc_server(Kserve()) as server:
        figures, log = locust(server.url, "--steps", "4-5", "--prompt", "a hat")
    assert figures["failures"] == 0
    sent = [request for request in server.arrived if request.model == "inpaint"]  # and cancels of the last ones
    assert 0 <= len(sent) - figures["requests"] <= 2  # the last ones were in flight
    assert figures["requests"] > 2
    assert {request.parameters["num_inference_steps"] for request in sent} == {("int64_param", 4), ("int64_param", 5)}
    assert len({request.parameters["seed"] for request in sent}) == len(sent)
    assert "inpaint 4 steps" in log


def test_failures_are_reported_and_the_run_ends():
    figures, log = locust("grpc://127.0.0.1:1", "--steps", "4")
    assert figures["requests"] == 0
    assert 2 <= figures["failures"] <= 14  # users pause a second after a failure
    assert "ServerUnavailable" in log
