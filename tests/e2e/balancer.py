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
    """Its addresses, and how it is started."""

    grpc_url: str
    http_url: str
    command: list[str]
    environment: dict[str, str]
    log: Path

    def started(self) -> subprocess.Popen[bytes]:
        """Another process of it: the master of those that take over from one another at a reload."""
        with self.log.open("a") as file:
            return subprocess.Popen(self.command, env=self.environment, stdout=file, stderr=subprocess.STDOUT)

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """By both protocols."""
        for url in (self.grpc_url, self.http_url):
            with Client(url, timeout=10) as client:
                deadline = time.monotonic() + 20
                while not client.health().ready:
                    assert process.poll() is None, self.log.read_text()
                    assert time.monotonic() < deadline, self.log.read_text()
                    time.sleep(0.2)


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


def balancers(count: int, ports: dict[str, int], log: Path) -> list[Balancer]:
    """The shipped configuration in front of servers on ``ports``, ``count`` times, each knowing the others."""
    assert HAPROXY is not None
    own = [shared_ports(["127.0.0.1"]) for _ in range(count)]
    peers = {f"DRESSFORM_BALANCER_{number}": f"127.0.0.1:{chosen['metrics_port']}" for number, chosen in enumerate(own)}
    environment = {
        "DRESSFORM_ROUTES": str(CONFIG.with_name("route.lua")),
        "DRESSFORM_BIND": "127.0.0.1",
        "DRESSFORM_PREFIX": "127.0.1.",
        "DRESSFORM_SUFFIX": "",
        "DRESSFORM_SERVER_HTTP_PORT": str(ports["http_port"]),
        "DRESSFORM_SERVER_GRPC_PORT": str(ports["grpc_port"]),
        **(peers if count > 1 else {}),
    }
    return [
        Balancer(
            f"grpc://127.0.0.1:{chosen['grpc_port']}",
            f"http://127.0.0.1:{chosen['http_port']}",
            [HAPROXY, "-W", "-db", "-f", str(CONFIG)],
            environment
            | {
                "DRESSFORM_HTTP_PORT": str(chosen["http_port"]),
                "DRESSFORM_GRPC_PORT": str(chosen["grpc_port"]),
                "DRESSFORM_BALANCER": f"dressform-balancer-{number}",
                "DRESSFORM_BALANCER_BIND": f"127.0.0.1:{chosen['metrics_port']}",
            },
            log.with_stem(f"{log.stem}-{number}"),
        )
        for number, chosen in enumerate(own)
    ]


@contextmanager
def running(known: Balancer) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the balancer, ready."""
    process = known.started()
    try:
        known.wait_until_ready(process)
        time.sleep(3)  # two checks: servers that are not there count as there before
        yield process
    finally:
        process.terminate()
        process.wait(10)
