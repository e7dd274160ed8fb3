"""Three servers behind the shipped balancer: no request is lost, and whoever watches or cancels finds the job."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from dressform import Cancelled, Client, Handle, Result, Retry
from dressform_contract import ROUTE_HEADER
from e2e.balancer import Balancer, balancer, hosts, needs_haproxy, shared_ports
from e2e.conftest import LONG
from waiting import wait_until

pytestmark = needs_haproxy
SERVERS = 3


@dataclass(frozen=True)
class Shop:
    """Servers, each ``dressform serve`` as a process of its own, by address; and their balancer."""

    servers: dict[str, subprocess.Popen[bytes]]
    ports: dict[str, int]
    front: Balancer

    def steps(self, host: str) -> int:
        """How many calls of its UNet a server has made."""
        with Client(f"grpc://{host}:{self.ports['grpc_port']}", timeout=10) as client:
            return client.stats()["unet"].executions


@pytest.fixture(scope="module")
def shop(tiny_tryon_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    addresses = hosts(SERVERS)
    ports = shared_ports(["127.0.0.1", *addresses])
    flags = [word for name, port in ports.items() for word in (f"--{name.replace('_', '-')}", str(port))]
    servers: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:
        for host in addresses:
            command = [sys.executable, "-m", "dressform_server", str(tiny_tryon_repository), "--host", host, *flags]
            log = stack.enter_context((folder / f"{host}.log").open("w"))
            servers[host] = subprocess.Popen([*command, "--onnx-threads", "1"], stdout=log, stderr=log)
        stack.callback(end, list(servers.values()))
        for host in addresses:
            with Client(f"grpc://{host}:{ports['grpc_port']}", timeout=10) as client:
                wait_until_ready(client, servers[host])
        yield Shop(servers, ports, stack.enter_context(balancer(ports, SERVERS, folder / "haproxy.log")))


def wait_until_ready(client: Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not client.health().ready:
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.5)


def end(servers: list[subprocess.Popen[bytes]]) -> None:
    for server in servers:
        if server.poll() is None:
            server.terminate()
    for server in servers:
        server.wait(60)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_jobs_are_watched_and_cancelled_through_the_balancer(
    shop: Shop, protocol: str, photo: Image.Image, mask: Image.Image
) -> None:
    url = shop.front.grpc_url if protocol == "grpc" else shop.front.http_url
    before = {host: shop.steps(host) for host in shop.servers}
    with Client(url, timeout=900, retries=0) as client, ThreadPoolExecutor(10) as pool:
        handles = [client.submit_inpaint(photo, mask, "a coat", **LONG) for _ in range(10)]
        watched = [handle.progress() for handle in handles]
        steps = list(pool.map(lambda news: next(one.step for one in news if one.step), watched))
        assert min(steps) > 0
        assert all(shop.steps(host) > before[host] for host in shop.servers)  # the least loaded gets the next
        assert all(pool.map(Handle.cancel, handles))
        ends = list(pool.map(lambda news: [one.state for one in news][-1], watched))
        assert ends == ["cancelled"] * 10
        for handle in handles:
            with pytest.raises(Cancelled):
                handle.result()


def test_what_one_protocol_asked_for_the_other_watches(shop: Shop, photo: Image.Image, mask: Image.Image) -> None:
    with Client(shop.front.grpc_url, timeout=900, retries=0) as asker:
        for _ in range(3):  # one after the other: a job that waits for its turn here may be done by then
            name = str(uuid.uuid4())
            handle = asker.submit_inpaint(photo, mask, "a coat", request_id=name, **LONG)
            assert any(news.step > 0 for news in handle.progress())
            question = {"action": "cancel", "id": name}
            url = f"{shop.front.http_url}/v2/models/jobs/generate"
            answer = httpx.post(url, json=question, headers={ROUTE_HEADER: name})
            assert answer.is_success, answer.text
            with pytest.raises(Cancelled):
                handle.result()


def test_no_request_is_lost_when_a_server_is_killed_and_another_drained(
    shop: Shop, photo: Image.Image, mask: Image.Image
) -> None:
    """The last of this file: two of the three servers are gone afterwards."""
    killed, drained, left = shop.servers
    family = psutil.Process(shop.servers[killed].pid).children(recursive=True)
    patient = Retry(retries=20, seconds=240, longest=2)
    with (
        Client(shop.front.grpc_url, timeout=300, retries=patient) as by_grpc,
        Client(shop.front.http_url, timeout=300, retries=patient) as by_http,
        ThreadPoolExecutor(24) as pool,
    ):

        def ask(number: int) -> Result:
            client = (by_grpc, by_http)[number % 2]
            return client.inpaint(photo, mask, "a coat", num_inference_steps=10 + number % 20, seed=number)

        asked = [pool.submit(ask, number) for number in range(200)]
        wait_until(lambda: sum(one.done() for one in asked) >= 40, 240)
        for process in [psutil.Process(shop.servers[killed].pid), *family]:  # at once, with what it had in flight
            process.kill()
        wait_until(lambda: sum(one.done() for one in asked) >= 90, 240)
        shop.servers[drained].send_signal(signal.SIGTERM)
        answers = [one.result() for one in asked]
    assert [answer.info["steps"] for answer in answers] == [10 + number % 20 for number in range(200)]
    assert [answer.seeds for answer in answers] == [[number] for number in range(200)]
    assert shop.servers[drained].wait(60) == 0
    assert shop.steps(left) > 0
