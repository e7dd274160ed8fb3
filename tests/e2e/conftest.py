"""The real Triton, once per session, on free loopback ports, serving a tiny random pipeline that knows both tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from dressform import Client
from dressform_server import Server

LONG: dict[str, Any] = {"num_inference_steps": 150, "num_images": 4, "height": 384, "width": 384}
"""Options of a request that the tiny model needs half a minute for: one that is not meant to end."""


@pytest.fixture(scope="session")
def server(tiny_tryon_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with Server(tiny_tryon_repository, http_port=0, grpc_port=0, metrics_port=0, log=log) as running:
        running.wait_ready(120)
        pid = running.pid
        yield running
    left = [path.name for path in Path("/dev/shm").glob(f"dressform[-_]{pid}[-_]*")]
    assert left == [], "the server left something behind in shared memory"


@pytest.fixture(scope="session")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``demo_server`` records feedback."""
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="session")
def demo_server(demo_repository: Path, audit_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the shipped model, with an audit log."""
    log = tmp_path_factory.mktemp("triton-demo") / "triton.log"
    with Server(demo_repository, http_port=0, grpc_port=0, metrics_port=0, log=log, audit_log=audit_log) as running:
        running.wait_ready(240)
        yield running


@pytest.fixture(scope="session", params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    """A client of each protocol."""
    with Client(server.grpc_url if request.param == "grpc" else server.http_url, timeout=300, retries=0) as connected:
        yield connected


@pytest.fixture(scope="session")
def grpc_client(server: Server) -> Iterator[Client]:
    with Client(server.grpc_url, timeout=300, retries=0) as connected:
        yield connected


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A person in orange: scikit-image's public-domain astronaut, smaller, not square."""
    return Image.fromarray(data.astronaut()).resize((150, 130), Image.Resampling.LANCZOS)


@pytest.fixture(scope="session")
def mask(photo: Image.Image) -> Image.Image:
    drawn = Image.new("L", photo.size, 0)
    drawn.paste(255, (40, 50, 110, 130))
    return drawn


@pytest.fixture(scope="session")
def garment() -> Image.Image:
    pixels = np.full((80, 60, 3), 255, np.uint8)
    pixels[10:70, 10:50] = (200, 30, 40)
    pixels[20:60:8, 10:50] = (250, 240, 230)
    return Image.fromarray(pixels)


def differences(a: Image.Image, b: Image.Image) -> np.ndarray:
    """Absolute differences of the values of two pictures."""
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16))


def run_in_python(config: Path) -> None:
    """Have the ``model.py`` in a leaf's version folder run in place of its graph; ``config`` is the leaf's."""
    text = re.sub(r'default_model_filename: "[^"]*"\n', "", config.read_text())
    config.write_text(text.replace('backend: "onnxruntime"', 'backend: "python"'))
