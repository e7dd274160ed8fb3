"""A server that is killed and comes back: nothing that clients asked for is lost."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from dressform import AsyncClient, Client, Retry
from dressform_server import Server
from e2e.window import Window
from waiting import wait_until

PATIENT = Retry(retries=100, seconds=300, longest=2)


def test_a_restart_loses_nothing(
    tiny_tryon_repository: Path, photo: Image.Image, mask: Image.Image, tmp_path: Path
) -> None:
    words: dict[str, Any] = {"num_inference_steps": 100, "height": 64, "width": 64}
    inputs = [{"image": photo, "mask": mask, "prompt": "a coat", "seed": seed, **words} for seed in range(6)]
    options: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    first = Server(tiny_tryon_repository, log=tmp_path / "first.log", **options)
    with first:
        first.wait_ready(180)
        urls = (first.grpc_url, first.http_url)
        ports = {name: int(url.rpartition(":")[2]) for name, url in zip(("grpc_port", "http_port"), urls, strict=True)}

        def blocking(url: str) -> list[Any]:
            with Client(url, retries=PATIENT) as client:
                return list(client.inpaint_many(inputs, concurrency=6, progress=False))

        def over_loop(url: str) -> list[Any]:
            async def main() -> list[Any]:
                async with AsyncClient(url, retries=PATIENT) as client:
                    return [each async for each in client.inpaint_many(inputs, concurrency=6, progress=False)]

            return asyncio.run(main())

        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(run, url) for run in (blocking, over_loop) for url in urls]
            window = Window(first)
            wait_until(lambda: sum(job["step"] > 0 for job in window.jobs("list")) >= 8, 60)
            first.kill()
            first.wait()  # its ports are free only then
            with Server(tiny_tryon_repository, log=tmp_path / "second.log", **{**options, **ports}) as second:
                second.wait_ready(180)
                made = [run.result() for run in runs]
    alike = {}
    for run in made:
        assert sorted(finished.index for finished in run) == list(range(6))
        for finished in run:
            assert finished.error is None
            alike.setdefault(finished.index, set()).add(finished.result.encoded[0])
    assert all(len(pictures) == 1 for pictures in alike.values()), "a repeat gives the same picture"
    assert len(set.union(*alike.values())) == 6
    ids = [finished.result.request_id for run in made for finished in run]
    assert sum("-retry" in request_id for request_id in ids) >= 8


def test_connections_that_end_by_their_age_lose_nothing(
    tiny_tryon_repository: Path, photo: Image.Image, mask: Image.Image
) -> None:
    """As Kubernetes' servers end them, so that clients find new servers; there after minutes."""
    age = ("--grpc-max-connection-age=500", "--grpc-max-connection-age-grace=60000")
    server = Server(tiny_tryon_repository, http_port=0, grpc_port=0, metrics_port=0, triton_options=age)
    with server, Client(server.grpc_url, retries=0) as client:
        server.wait_ready(180)
        began = time.monotonic()
        while time.monotonic() < began + 4:  # several ages
            handle = client.submit_inpaint(photo, mask, "a coat", num_inference_steps=100, num_images=2)
            news = [one.state for one in handle.progress()]
            assert news[-1] == "done"
            assert handle.result().images
