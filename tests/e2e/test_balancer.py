"""Three servers behind the shipped balancer: no request is lost, and whoever watches or cancels finds the job."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.grpc import service_pb2_grpc

from dressform import Cancelled, Client, Handle, Result, Retry
from dressform.transports.grpc_messages import CHANNEL, watch_message
from dressform_contract import ROUTE_HEADER
from e2e.balancer import Balancer, balancers, hosts, needs_haproxy, running, shared_ports
from e2e.conftest import LONG
from waiting import wait_until

pytestmark = needs_haproxy
SERVERS = 3


@dataclass(frozen=True)
class Shop:
    """Servers, each ``dressform serve`` as a process of its own, by address; and two balancers before them."""

    servers: dict[str, subprocess.Popen[bytes]]
    ports: dict[str, int]
    front: Balancer
    beside: Balancer
    processes: dict[str, subprocess.Popen[bytes]]
    """The balancers', by their HTTP addresses."""

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
        front, beside = balancers(2, ports, folder / "haproxy.log")
        processes = {one.http_url: stack.enter_context(running(one)) for one in (front, beside)}
        yield Shop(servers, ports, front, beside, processes)


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


def watch(by: Balancer, protocol: str, name: str) -> None:
    """Read one event of a request, asked for by its id alone."""
    if protocol == "http":
        url, route = f"{by.http_url}/v2/models/watch/generate_stream", {ROUTE_HEADER: name}
        with httpx.stream("POST", url, json={"id": name}, headers=route, timeout=60) as events:
            line = next(events.iter_lines())
        assert re.match("data:(?!.*NOT_FOUND)", line), line
        return
    with grpc.insecure_channel(by.grpc_url.removeprefix("grpc://"), CHANNEL) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = stub.ModelStreamInfer(iter([watch_message(name)]), metadata=((ROUTE_HEADER, name),))
        assert next(answers).error_message == ""


def cancel(by: Balancer, protocol: str, name: str) -> None:
    """Cancel a request by its id alone; an error where the server that is asked does not have it."""
    if protocol == "http":
        question, route = {"action": "cancel", "id": name}, {ROUTE_HEADER: name}
        answer = httpx.post(f"{by.http_url}/v2/models/jobs/generate", json=question, headers=route, timeout=60)
        assert answer.is_success, answer.text
        return
    inputs = []
    for tensor, word in {"action": b"cancel", "id": name.encode()}.items():
        inputs.append(triton.InferInput(tensor, [1], "BYTES"))
        inputs[-1].set_data_from_numpy(np.array([word], np.object_))
    with triton.InferenceServerClient(by.grpc_url.removeprefix("grpc://"), channel_args=CHANNEL) as connection:
        connection.infer("jobs", inputs, headers={ROUTE_HEADER: name})


PROTOCOLS = [("grpc", "http"), ("http", "grpc"), ("grpc", "grpc")]
"""By which one asks for a picture, and the other for the job."""


def test_what_one_protocol_asked_for_the_other_watches(shop: Shop, photo: Image.Image, mask: Image.Image) -> None:
    with Client(shop.front.grpc_url, timeout=900, retries=0) as asker:
        for _ in range(3):  # one after the other: a job that waits for its turn here may be done by then
            name = str(uuid.uuid4())
            handle = asker.submit_inpaint(photo, mask, "a coat", request_id=name, **LONG)
            assert any(news.step > 0 for news in handle.progress())
            cancel(shop.front, "http", name)
            with pytest.raises(Cancelled):
                handle.result()


@pytest.mark.parametrize(("asks", "follows"), PROTOCOLS)
def test_what_one_balancer_sent_the_other_finds(
    asks: str, follows: str, shop: Shop, photo: Image.Image, mask: Image.Image
) -> None:
    """At once: the watch may come before the other balancer has told of the request."""
    url = shop.front.grpc_url if asks == "grpc" else shop.front.http_url
    with Client(url, timeout=900, retries=0) as asker:
        for _ in range(6):  # three servers: not by luck
            name = str(uuid.uuid4())
            handle = asker.submit_inpaint(photo, mask, "a coat", request_id=name, **LONG)
            watch(shop.beside, follows, name)
            cancel(shop.beside, follows, name)
            with pytest.raises(Cancelled):
                handle.result()


def test_a_watch_that_comes_before_its_request_finds_it(shop: Shop, photo: Image.Image, mask: Image.Image) -> None:
    with Client(shop.front.grpc_url, timeout=900, retries=0) as asker, ThreadPoolExecutor(6) as pool:
        names = [str(uuid.uuid4()) for _ in range(6)]
        watches = [pool.submit(watch, shop.beside, ("grpc", "http")[i % 2], name) for i, name in enumerate(names)]
        time.sleep(0.5)  # they are there
        handles = [asker.submit_inpaint(photo, mask, "a coat", request_id=name, **LONG) for name in names]
        for one in watches:
            one.result()
        assert all(pool.map(Handle.cancel, handles))


@contextmanager
def jobs(by: Balancer, photo: Image.Image, mask: Image.Image) -> Iterator[list[str]]:
    """The ids of six jobs, as many as make it unlikely that all are found by luck; they must be cancelled by id."""
    with Client(by.http_url, timeout=900, retries=0) as asker:
        names = [str(uuid.uuid4()) for _ in range(6)]
        handles = [asker.submit_inpaint(photo, mask, "a coat", request_id=name, **LONG) for name in names]
        for handle in handles:
            next(handle.progress())
        yield names
        for handle in handles:
            with pytest.raises(Cancelled):
                handle.result()


def test_a_balancer_that_is_reloaded_knows_the_jobs(
    shop: Shop, photo: Image.Image, mask: Image.Image, tmp_path: Path
) -> None:
    """Nobody tells it but the process before it."""
    (alone,) = balancers(1, shop.ports, tmp_path / "alone.log")
    with running(alone) as process:
        time.sleep(10)  # from when on HAProxy hands over what it has
        with jobs(alone, photo, mask) as names:
            process.send_signal(signal.SIGUSR2)
            wait_until(lambda: alone.log.read_text().count("Loading success") == 2, 20)  # of its start and of this
            for name in names:
                watch(alone, "grpc", name)
                cancel(alone, "grpc", name)


def test_a_balancer_that_was_killed_learns_the_jobs_from_the_other(
    shop: Shop, photo: Image.Image, mask: Image.Image
) -> None:
    """The last that needs two balancers."""
    with jobs(shop.front, photo, mask) as names:
        master = psutil.Process(shop.processes[shop.beside.http_url].pid)
        for process in [master, *master.children()]:
            process.kill()
        shop.processes[shop.beside.http_url].wait()
        with running(shop.beside):
            for name in names:
                watch(shop.beside, "grpc", name)
                cancel(shop.beside, "grpc", name)


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
