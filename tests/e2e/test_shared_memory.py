"""What the stages share is gone after every end of the server, however rude."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dressform_server import Server


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_no_shared_file_survives_the_server(tiny_tryon_repository: Path, tmp_path: Path, how: str) -> None:
    server = Server(tiny_tryon_repository, http_port=0, grpc_port=0, metrics_port=0, log=tmp_path / "log")
    with server:
        server.wait_ready(120)
        pattern = f"dressform-{server.pid}-*"
        assert {path.suffix for path in Path("/dev/shm").glob(pattern)} == {".jobs", ".post", ".handover"}
        if how == "kill":
            server.kill()
            deadline = time.monotonic() + 10
            while server.pid is not None and time.monotonic() < deadline:
                time.sleep(0.05)
    assert list(Path("/dev/shm").glob(pattern)) == []
