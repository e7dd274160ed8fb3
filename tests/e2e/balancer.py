"""The shipped balancer, before servers on the loopback addresses 127.0.1.2, 127.0.1.3, …"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dressform import Client

CONFIG = Path(__file__).parents[2] / "docker" / "balancer" / "haproxy.cfg"
HAPROXY = shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@dataclass(frozen=True)
class Balancer:
    """Its addresses."""

    grpc_url: str
    http_url: str


def hosts(count: int) -> list[str]:
    """Loopback addresses, as the balancer names its servers."""
    return [f"127.0.1.{number}" for number in range(2, 2 + count)]


def shared_ports(addresses: list[str]) -> dict[str, int]:
    """A port for each protocol that is free at all ``addresses``."""
    found: list[int] = []
    while len(found) < 3:
        with ExitStack() as held:
            first = held.enter_context(socket.create_server((addresses[0], 0)))
            port = first.getsockname()[1]
            try:
                for address in addresses[1:]:
                    held.enter_context(socket.create_server((address, port)))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return dict(zip(("http_port", "grpc_port", "metrics_port"), found, strict=True))


@contextmanager
def balancer(ports: dict[str, int], servers: int, log: Path) -> Iterator[Balancer]:
    """The shipped configuration in front of ``servers`` servers on ``ports``; ready when each of them is known."""
    assert HAPROXY is not None
    environment = {
        "DRESSFORM_ROUTES": str(CONFIG.with_name("route.lua")),
        "DRESSFORM_BIND": "127.0.0.1",
        "DRESSFORM_HTTP_PORT": str(ports["http_port"]),
        "DRESSFORM_GRPC_PORT": str(ports["grpc_port"]),
        "DRESSFORM_PREFIX": "127.0.1.",
        "DRESSFORM_SUFFIX": "",
        "DRESSFORM_SERVER_HTTP_PORT": str(ports["http_port"]),
        "DRESSFORM_SERVER_GRPC_PORT": str(ports["grpc_port"]),
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [HAPROXY, "-db", "-f", str(CONFIG)], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        found = Balancer(f"grpc://127.0.0.1:{ports['grpc_port']}", f"http://127.0.0.1:{ports['http_port']}")
        for url in (found.grpc_url, found.http_url):
            with Client(url, timeout=10) as client:
                deadline = time.monotonic() + 20
                while not client.health().ready:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.2)
        time.sleep(3)  # two checks: those that are not there count as there before
        yield found
    finally:
        process.terminate()
        process.wait(10)
