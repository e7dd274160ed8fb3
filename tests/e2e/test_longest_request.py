"""A server with a limit of its own for any request: what cannot make it is dropped, and then refused at the door."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dressform import Client, DeadlineExceeded
from dressform_server import Server
from e2e.conftest import LONG

SECONDS = 3


@pytest.fixture(scope="module")
def limited(tiny_tryon_repository: Path) -> Iterator[Server]:
    with Server(tiny_tryon_repository, http_port=0, grpc_port=0, metrics_port=0, longest_request=SECONDS) as running:
        running.wait_ready(120)
        yield running


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_request_takes_longer_than_the_server_allows(
    limited: Server, photo: Image.Image, mask: Image.Image, protocol: str
) -> None:
    with Client(limited.grpc_url if protocol == "grpc" else limited.http_url, timeout=300, retries=0) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="the server's own limit for any request") as late:
            client.inpaint(photo, mask, "a coat", **LONG)  # half a minute
        assert late.value.fields["deadline_ms"] == str(1000 * SECONDS)
        assert time.monotonic() - began < 2 * SECONDS + 10, (
            "generous for a busy machine, and less than the request takes"
        )
        with pytest.raises(DeadlineExceeded, match="deadline of 50 ms|50 ms are allowed") as own:
            client.inpaint(photo, mask, "a coat", **LONG, deadline_ms=50)
        assert "server's own" not in str(own.value)
        assert client.inpaint(photo, mask, "a coat", num_inference_steps=2).info["steps"] == 2
