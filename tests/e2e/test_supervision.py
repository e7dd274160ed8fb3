"""A stage or graph that dies or hangs under load: the server is started anew on the same ports, and clients go on."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from dressform import Client, DressformError, Retry, ServerUnavailable
from e2e.launching import gone, launch, stub_of

DEAD_SECONDS, HANGING_SECONDS, START_SECONDS = 10.0, 30.0, 60.0
"""At most, on a busy machine: until a dead or a hanging process is noticed, and until the next server is ready."""
TIMES = 10
"""What a flood asks for, in what the server can do."""
FULL = 8
"""Jobs that fill the UNet's calls: what the server does with them is what it can do."""


@dataclass
class Supervised:
    launched: subprocess.Popen[bytes]
    address: str
    shown: Callable[[], str]


@pytest.fixture
def supervised(tiny_tryon_repository: Path, tmp_path: Path) -> Iterator[Supervised]:
    log = tmp_path / "serve.log"
    launched = launch(tiny_tryon_repository, log=log)
    wait_for(lambda: "ready: http" in log.read_text(), log.read_text)
    (address,) = re.findall(r"ready: .* grpc://(\S+)", log.read_text())
    yield Supervised(launched, address, log.read_text)
    launched.send_signal(signal.SIGTERM)
    launched.wait(60)


@pytest.mark.parametrize(
    ("stage", "number", "reason"),
    [
        ("denoise", signal.SIGKILL, "the process of denoise is dead"),
        ("unet", signal.SIGSTOP, "the process of unet was not heard of for"),
        pytest.param("unet", signal.SIGKILL, "the process of unet is dead", marks=pytest.mark.slow),
        pytest.param("preprocess", signal.SIGSTOP, "the process of preprocess was not", marks=pytest.mark.slow),
        pytest.param("postprocess", signal.SIGKILL, "the process of postprocess is dead", marks=pytest.mark.slow),
        pytest.param("jobs", signal.SIGKILL, "the process of jobs is dead", marks=pytest.mark.slow),
        pytest.param("watch", signal.SIGSTOP, "the process of watch was not", marks=pytest.mark.slow),
    ],
)
def test_a_lost_process_costs_seconds(
    supervised: Supervised, stage: str, number: int, reason: str, photo: Image.Image, mask: Image.Image
) -> None:
    patient = Retry(retries=100, seconds=300, longest=1)
    with Client(f"grpc://{supervised.address}", timeout=300, retries=patient) as client, ThreadPoolExecutor(8) as pool:

        def ask(seed: int) -> list[int]:
            return client.inpaint(photo, mask, "a coat", num_inference_steps=20, seed=seed).seeds

        first = client.inpaint(photo, mask, "a coat", num_inference_steps=2, seed=1)
        asked = [pool.submit(ask, seed) for seed in range(40)]
        time.sleep(0.3)
        stub_of(supervised.launched, stage).send_signal(number)
        notice = DEAD_SECONDS if number == signal.SIGKILL else HANGING_SECONDS
        wait_for(lambda: "it is started anew" in supervised.shown(), supervised.shown, notice)
        wait_for(lambda: supervised.shown().count("ready: http") == 2, supervised.shown, START_SECONDS)
        assert reason in supervised.shown()
        answers = [one.result() for one in asked]
        again = client.inpaint(photo, mask, "a coat", num_inference_steps=2, seed=1)
    assert again.image.tobytes() == first.image.tobytes()
    assert answers == [[seed] for seed in range(40)], "none is lost: clients ask again"
    assert supervised.launched.poll() is None


def test_triton_itself_that_hangs_is_started_anew(
    supervised: Supervised, photo: Image.Image, mask: Image.Image
) -> None:
    triton = psutil.Process(supervised.launched.pid).children()[0]
    stages = triton.children(recursive=True)
    triton.suspend()  # idle, and its stages beat on
    wait_for(lambda: "it is started anew" in supervised.shown(), supervised.shown, HANGING_SECONDS)
    assert re.search(r"Triton has not answered for \d+ s; it is started anew", supervised.shown())
    wait_for(lambda: supervised.shown().count("ready: http") == 2, supervised.shown)
    assert gone([triton, *stages], within=5)
    with Client(f"grpc://{supervised.address}", timeout=60) as client:
        assert client.inpaint(photo, mask, "a coat", num_inference_steps=2).info["steps"] == 2


def test_a_failure_while_loading_is_one_failure_more(supervised: Supervised) -> None:
    family = psutil.Process(supervised.launched.pid)
    first = family.children()[0]
    first.kill()
    wait_for(lambda: "it is started anew" in supervised.shown(), supervised.shown)
    wait_for(lambda: any(child.pid != first.pid for child in family.children()), supervised.shown)
    assert supervised.shown().count("ready: http") == 1
    next(child for child in family.children() if child.pid != first.pid).kill()
    wait_for(lambda: supervised.shown().count("ready: http") == 2, supervised.shown)
    assert supervised.shown().count("it is started anew") == 2
    assert supervised.launched.poll() is None


def test_without_supervision_it_ends_at_once_whatever_is_in_flight(
    tiny_tryon_repository: Path, tmp_path: Path, photo: Image.Image, mask: Image.Image
) -> None:
    log = tmp_path / "serve.log"
    launched = launch(tiny_tryon_repository, "--no-supervise", "--exit-timeout", "90", log=log)
    wait_for(lambda: "ready: http" in log.read_text(), log.read_text)
    (address,) = re.findall(r"ready: .* grpc://(\S+)", log.read_text())
    with Client(f"grpc://{address}", timeout=60, retries=0) as client:
        handles = [client.submit_inpaint(photo, mask, "a coat", num_inference_steps=150) for _ in range(3)]
        assert any(news.step > 0 for news in handles[0].progress())
        stub_of(launched, "denoise").kill()
        assert launched.wait(30) == 1
        for handle in handles:
            with pytest.raises(DressformError):
                handle.result()
    assert "the process of denoise is dead" in log.read_text()


def test_a_flood_is_no_fault(supervised: Supervised, photo: Image.Image, mask: Image.Image) -> None:
    flood(supervised, photo, mask, seconds=8, steps=50)


@pytest.mark.slow
def test_five_minutes_of_flood_are_no_fault(supervised: Supervised, photo: Image.Image, mask: Image.Image) -> None:
    flood(supervised, photo, mask, seconds=300, steps=150)


def flood(supervised: Supervised, photo: Image.Image, mask: Image.Image, seconds: float, steps: int) -> None:
    """``TIMES`` what the server can do, or more: 60 users who ask again at once, for four pictures of so many steps."""
    triton = psutil.Process(supervised.launched.pid).children()[0].pid
    long: dict[str, Any] = {"num_inference_steps": steps, "num_images": 4}
    with Client(f"grpc://{supervised.address}", timeout=300, retries=0) as client, ThreadPoolExecutor(60) as pool:
        began = time.monotonic()
        for handle in [client.submit_inpaint(photo, mask, "a coat", **long) for _ in range(FULL)]:
            handle.result()
        capacity = FULL / (time.monotonic() - began)
        end = time.monotonic() + seconds

        def ask(user: int) -> tuple[int, int]:
            done = refused = 0
            while time.monotonic() < end:
                try:
                    client.inpaint(photo, mask, "a coat", **long, deadline_ms=60_000)
                    done += 1
                except DressformError as error:
                    assert not isinstance(error, ServerUnavailable), error
                    refused += 1
                    time.sleep(0.1)
            return done, refused

        counts = list(pool.map(ask, range(60)))
    done, refused = (sum(column) for column in zip(*counts))
    assert (done + refused) / seconds >= TIMES * capacity, (
        f"{done} done, {refused} refused, {capacity:.2f} can be done a second"
    )
    assert done > 0
    assert psutil.pid_exists(triton)
    assert "started anew" not in supervised.shown()


def wait_for(done: Callable[[], bool], shown: Callable[[], str], seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, shown()
        time.sleep(0.1)
