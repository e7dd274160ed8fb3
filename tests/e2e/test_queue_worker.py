"""The queue worker of ``docs/examples``: workers and the server are killed, and every pair is painted."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from dressform.app import gallery
from dressform_server import Server

WORKER = Path(__file__).parents[2] / "docs/examples/queue_worker.py"
PAIRS = 16


class Queue:
    """The shop's side of the queue."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, timeout=60, isolation_level=None)

    def add(self, person: Path, garment: Path) -> None:
        self.database.execute(
            "INSERT INTO pairs (person, garment, category) VALUES (?, ?, 'upper')", (str(person), str(garment))
        )

    def states(self) -> dict[str, int]:
        return dict(self.database.execute("SELECT state, COUNT(*) FROM pairs GROUP BY state").fetchall())

    def wait(self, happened: Callable[[dict[str, int]], bool], seconds: float = 300) -> dict[str, int]:
        end = time.monotonic() + seconds
        while not happened(states := self.states()):
            assert time.monotonic() < end, states
            time.sleep(0.05)
        return states


def test_killed_workers_and_a_killed_server_lose_nothing(demo_repository: Path, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.read_text().replace("LEASE = 600 ", "LEASE = 30 "))
    assert "LEASE = 30 " in script.read_text()
    options: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    workers: list[subprocess.Popen[bytes]] = []

    def hire(url: str) -> subprocess.Popen[bytes]:
        workers.append(subprocess.Popen([sys.executable, script, "queue.db", "painted", url], cwd=tmp_path))
        return workers[-1]

    try:
        with Server(demo_repository, log=tmp_path / "first.log", **options) as first:
            first.wait_ready(180)
            url = first.grpc_url
            hire(url), hire(url)
            while not (tmp_path / "queue.db").exists() or not _has_table(tmp_path / "queue.db"):
                assert all(worker.poll() is None for worker in workers)
                time.sleep(0.05)
            queue = Queue(tmp_path / "queue.db")
            person, garment = gallery.PEOPLE[0].path, gallery.GARMENTS[0].path
            for _ in range(PAIRS):
                queue.add(person, garment)
            queue.add(person, tmp_path / "nowhere.png")
            queue.wait(lambda states: states.get("done", 0) >= 3)
            workers[0].kill()
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
            assert queue.states()["done"] < PAIRS, "it was killed in the middle"
        options["grpc_port"] = int(url.rpartition(":")[2])
        with Server(demo_repository, log=tmp_path / "second.log", **options) as second:
            second.wait_ready(180)
            hire(url)
            states = queue.wait(lambda states: states.get("done", 0) + states.get("refused", 0) > PAIRS)
        assert states == {"done": PAIRS, "refused": 1}
        ((note,),) = queue.database.execute("SELECT note FROM pairs WHERE state = 'refused'").fetchall()
        assert "nowhere.png" in note
        pictures = sorted((tmp_path / "painted").glob("*.png"))
        assert len(pictures) == PAIRS
        with Image.open(person) as photo:
            assert all(Image.open(path).size == photo.size for path in pictures)
    finally:
        for worker in workers:
            worker.kill()


def _has_table(path: Path) -> bool:
    with sqlite3.connect(path) as database:
        return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'pairs'").fetchone())


def test_it_is_as_short_as_promised() -> None:
    code = WORKER.read_text().split('"""', 2)[2].splitlines()
    assert len([line for line in code if line.strip()]) <= 40
