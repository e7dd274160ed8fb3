"""``dressform batch`` and the rest of the command line on the real Triton."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dressform import Client
from dressform_server import Server
from e2e.conftest import LONG
from e2e.window import Window

PAIRS = 60
TINY = ("--num-inference-steps", "12", "--height", "64", "--width", "64")


def dressform(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dressform", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "manifest.jsonl"
    # Without the last line, which may be half there.
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def await_lines(folders: list[Path], count: int, processes: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 400
    while any(len(lines(folder)) < count for folder in folders):
        assert time.monotonic() < end, "the batches do not go on"
        assert all(process.poll() is None for process in processes), "a batch ended early"
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path, photo: Image.Image, mask: Image.Image, garment: Image.Image) -> Path:
    for name, picture in (("person", photo), ("mask", mask), ("garment", garment)):
        picture.save(tmp_path / f"{name}.png")
    rows = [f"person.png,garment.png,mask.png,{seed},pair{seed:02}" for seed in range(PAIRS)]
    (tmp_path / "pairs.csv").write_text("\n".join(["person,garment,mask,seed,name", *rows]) + "\n")
    return tmp_path


@pytest.mark.timeout(1200)
def test_sixty_pairs_survive_a_server_that_is_killed_and_comes_back(tiny_tryon_repository: Path, folder: Path) -> None:
    options: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    first = Server(tiny_tryon_repository, log=folder / "first.log", **options)
    with first:
        first.wait_ready(180)
        urls = {"grpc": first.grpc_url, "http": first.http_url}
        ports = {f"{name}_port": int(url.rpartition(":")[2]) for name, url in urls.items()}
        outs = [folder / name for name in urls]
        command = [sys.executable, "-m", "dressform", "batch", "pairs.csv", "--concurrency", "4", *TINY]
        batches = [
            subprocess.Popen(
                [*command, "-o", name, "--server", url],
                cwd=folder,
                text=True,
                stdout=subprocess.PIPE,
                stderr=(folder / f"{name}.err").open("w"),
            )
            for name, url in urls.items()
        ]
        try:
            await_lines(outs, 10, batches)
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
            assert all(len(lines(out)) < PAIRS for out in outs), "it was killed in the middle"
            assert all(batch.poll() is None for batch in batches), "they wait for it"
            with Server(tiny_tryon_repository, log=folder / "second.log", **{**options, **ports}) as second:
                second.wait_ready(180)
                printed = [batch.communicate(timeout=400)[0] for batch in batches]
        finally:
            for batch in batches:
                batch.kill()
    for name, out, batch, text in zip(urls, outs, batches, printed, strict=True):
        said = (folder / f"{name}.err").read_text()
        assert batch.returncode == 0, said
        assert "Waiting for the server." in said
        assert f"{PAIRS} of {PAIRS} done" in said
        assert len(text.splitlines()) == PAIRS
        made = {line["name"]: line for line in lines(out)}
        assert len(lines(out)) == len(made) == PAIRS
        assert [made[f"pair{seed:02}"]["seeds"] for seed in range(PAIRS)] == [[seed] for seed in range(PAIRS)]
        assert not any("error" in line for line in made.values())
        assert sum("-retry" in line["request_id"] for line in made.values()) >= 1
        assert sorted(path.name for path in out.iterdir()) == sorted([*(f"{n}.png" for n in made), "manifest.jsonl"])
        assert all(Image.open(path).size == (150, 130) for path in out.glob("*.png"))
    over_grpc, over_http = ({path.name: path.read_bytes() for path in out.glob("*.png")} for out in outs)
    assert over_grpc == over_http, "a repeat gives the same picture"


def test_a_batch_that_was_killed_goes_on_where_it_was(server: Server, folder: Path) -> None:
    words = ["batch", "pairs.csv", "-o", "out", "--server", server.http_url, "--concurrency", "4", *TINY]
    process = subprocess.Popen([sys.executable, "-m", "dressform", *words], cwd=folder, stdout=subprocess.DEVNULL)
    await_lines([folder / "out"], 8, [process])
    process.kill()
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.png")}
    recorded = {line["outputs"][0] for line in lines(folder / "out")}
    assert 8 <= len(recorded) < PAIRS
    assert recorded <= set(before), "what the manifest says is there"
    done = dressform(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"{PAIRS} of {PAIRS} done ({len(recorded)} of them before)" in done.stderr
    assert len({line["name"] for line in lines(folder / "out")}) == len(lines(folder / "out")) == PAIRS
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.png")}
    assert all(after[name] == before[name] for name in recorded), "nothing is made twice"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_command_that_is_interrupted_frees_the_server(
    server: Server, folder: Path, protocol: str, number: signal.Signals
) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    long = [f"--{name.replace('_', '-')}={value}" for name, value in LONG.items()]
    words = ["tryon", "person.png", "garment.png", "--mask=mask.png", *long, "--server", url]
    command = [sys.executable, "-m", "dressform", *words]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    with Client(server.grpc_url) as client:
        failed = client.stats()["tryon"].failed
        end = time.monotonic() + 120
        while not _working(server) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130, said
        assert said == "dressform: interrupted\n"
        while client.stats()["tryon"].failed == failed and time.monotonic() < end:
            time.sleep(0.05)
        assert client.stats()["tryon"].failed > failed
    assert not _working(server)


def _working(server: Server) -> bool:
    return any(job["step"] > 0 for job in Window(server).jobs("list"))


def test_the_other_commands(server: Server, folder: Path) -> None:
    for url in (server.grpc_url, server.http_url):
        done = dressform("health", "--server", url, folder=folder)
        assert re.fullmatch(rf"{url} is ready: inpaint, tryon  \(triton 2\.\d+\.\d+\)\n", done.stdout)
        done = dressform("models", "--server", url, "--json", folder=folder)
        assert {"tryon", "unet", "denoise"} <= {model["name"] for model in json.loads(done.stdout) if model["ready"]}
        words = ("tryon", "person.png", "garment.png", "--mask", "mask.png", "--seed", "7", *TINY)
        done = dressform(*words, "--json", "-o", "fitted.webp", "--server", url, folder=folder)
        document = json.loads(done.stdout)
        assert (document["outputs"], document["seeds"]) == (["fitted.webp"], [7])
        assert document["info"]["steps"] == 12
        assert Image.open(folder / "fitted.webp").format == "WEBP"
        done = dressform("stats", "--server", url, "--json", folder=folder)
        assert json.loads(done.stdout)["tryon"]["succeeded"] >= 1
        done = dressform("doctor", "--server", url, "--request", "--json", folder=folder)
        found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
        assert found["request"]["state"] == found["models"]["state"] == "ok", found
        done = dressform("mask", "person.png", "--server", url, folder=folder)
        assert (done.returncode, "dressform health" in done.stderr) == (2, True), "it has no parser"
