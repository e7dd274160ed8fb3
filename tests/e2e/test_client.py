"""The library against the real Triton: both protocols, both clients, giving up, progress, TLS."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dressform import (
    TLS,
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    Result,
    ServerUnavailable,
)
from dressform_contract import PARAMETERS
from dressform_server import Server
from e2e.conftest import LONG
from e2e.tls import certificates, proxy
from e2e.window import Window
from waiting import wait_until

OPTIONS: dict[str, Any] = {
    "num_inference_steps": 3,
    "guidance_scale": 3,
    "guidance_start": 0.0,
    "guidance_end": 0.7,
    "guidance_rescale": 0.1,
    "strength": 0.9,
    "solver": "ddim",
    "eta": 0.5,
    "seed": 5,
    "num_images": 2,
    "height": 64,
    "width": 72,
    "resize_mode": "crop",
    "padding_mask_crop": 8,
    "mask_blur": 1,
    "mask_grow": 2,
    "mask_invert": False,
    "category": "upper",
    "composite": "hard",
    "output_format": "webp",
    "quality": 80,
    "deadline_ms": 120_000,
    "service_class": "batch",
    "preview_every": 1,
}


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, server: Server) -> str:
    return server.grpc_url if request.param == "grpc" else server.http_url


@pytest.fixture
def window(server: Server) -> Window:
    return Window(server)


def over_loop(url: str, work: Callable[[AsyncClient], Any], **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(url, **options) as client:
            return await work(client)

    return asyncio.run(main())


def at_work(window: Window) -> None:
    """The server makes the steps of one long request."""
    wait_until(lambda: sum(job["rows"] for job in window.jobs("list") if job["step"] > 0) == 8, 60)


def freed(window: Window) -> None:
    """The server works on nothing any more, though the requests had long to go."""
    wait_until(lambda: window.jobs("list") == [], 10)


# --- calls -----------------------------------------------------------------------------------------------------------


def test_every_option_by_both_protocols_and_both_clients(
    server: Server, photo: Image.Image, mask: Image.Image, garment: Image.Image
) -> None:
    assert set(OPTIONS) == set(PARAMETERS)
    words = (photo, garment), {"mask": mask, "negative_prompt": "torn", **OPTIONS}
    made: list[Result] = []
    for url in (server.grpc_url, server.http_url):
        for compression in (None, "gzip"):
            headers = {"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
            settings: dict[str, Any] = {"compression": compression, "headers": headers}
            with Client(url, timeout=120, **settings) as client:
                made.append(client.tryon(*words[0], **words[1]))
            made.append(over_loop(url, lambda client: client.tryon(*words[0], **words[1]), **settings))
    assert len(made) == 8
    assert {tuple(result.encoded) for result in made} == {tuple(made[0].encoded)}, "one request, one answer"
    assert made[0].seeds == [5, 6]
    assert made[0].encoded[0][8:12] == b"WEBP"
    assert (made[0].info["height"], made[0].info["width"]) == (64, 72)


@pytest.mark.parametrize("name", [name for name, p in PARAMETERS.items() if p.kind != "boolean"])
def test_every_option_reaches_the_server(client: Client, photo: Image.Image, mask: Image.Image, name: str) -> None:
    """It is the server that refuses a value out of range, by name."""
    wrong: Any = "nothing" if PARAMETERS[name].kind == "choice" else 10**8
    wrong = -1 if name in ("seed", "deadline_ms") else wrong
    with pytest.raises(InvalidRequest, match=f"{name} must be"):
        client.inpaint(photo, mask, "a coat", **{name: wrong})


def test_32_threads_on_one_client(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    def call(seed: int) -> Result:
        return client.inpaint(photo, mask, "a coat", seed=seed, num_inference_steps=2, height=64, width=64)

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(call, range(96)))
    assert [result.seed for result in results] == list(range(96))
    alone = call(95)
    assert alone.encoded == results[95].encoded, "each got its own"


def test_many_by_both_clients(url: str, photo: Image.Image, mask: Image.Image) -> None:
    inputs: list[Any] = [{"image": photo, "mask": mask, "prompt": "a coat", "seed": i} for i in range(12)]
    inputs[4] = (b"no picture", mask, "a coat")
    words: dict[str, Any] = {"num_inference_steps": 2, "concurrency": 5, "progress": False}

    async def gathered(client: AsyncClient) -> list[Any]:
        return [finished async for finished in client.inpaint_many(inputs, **words)]

    with Client(url, timeout=120) as client:
        runs = [list(client.inpaint_many(inputs, **words)), over_loop(url, gathered)]
    for run in runs:
        assert sorted(finished.index for finished in run) == list(range(12))
        assert [type(finished.error) for finished in run if finished.error] == [InvalidRequest]
        assert all(f.result.seed == f.index for f in run if f.result is not None)


def test_models_and_statistics(url: str, photo: Image.Image, mask: Image.Image) -> None:
    with Client(url, timeout=60) as client:
        assert {"inpaint", "tryon", "unet", "jobs"} <= {model.name for model in client.models() if model.ready}
        before = client.stats()["inpaint"]
        client.inpaint(photo, mask, "a coat", num_inference_steps=2)
        after = client.stats()["inpaint"]
    assert after.succeeded == before.succeeded + 1
    assert after.request_seconds > before.request_seconds
    stats = over_loop(url, lambda client: client.stats())
    assert stats["unet"].compute_seconds > 0
    assert stats["unet"].executions > 0
    health = over_loop(url, lambda client: client.health())
    assert (health.tasks, health.server.partition(".")[0]) == (("inpaint", "tryon"), "triton 2")
    assert {model.name for model in over_loop(url, lambda client: client.models())} >= {"inpaint", "watch"}


# --- giving up -------------------------------------------------------------------------------------------------------


def test_cancel_frees_the_rows(url: str, window: Window, photo: Image.Image, mask: Image.Image) -> None:
    with Client(url) as client:
        handle = client.submit_inpaint(photo, mask, "a coat", **LONG)
        at_work(window)
        assert handle.cancel()
        freed(window)
        with pytest.raises(Cancelled):
            handle.result(10)

    async def work(client: AsyncClient) -> None:
        handle = client.submit_inpaint(photo, mask, "a coat", **LONG)
        await asyncio.to_thread(at_work, window)
        assert await handle.cancel()
        await asyncio.to_thread(freed, window)
        with pytest.raises(Cancelled):
            await handle

    over_loop(url, work)


def test_a_timeout_frees_the_rows(url: str, window: Window, photo: Image.Image, mask: Image.Image) -> None:
    """Here the server was told to go on for an hour: it is the client that gives up."""
    late: dict[str, Any] = {**LONG, "timeout": 1, "deadline_ms": 3_600_000}
    with Client(url) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="no answer within 1 s"):
            client.inpaint(photo, mask, "a coat", **late)
        assert time.monotonic() - began < 10
        freed(window)

    async def work(client: AsyncClient) -> None:
        with pytest.raises(DeadlineExceeded, match="no answer within 1 s"):
            await client.inpaint(photo, mask, "a coat", **late)
        await asyncio.to_thread(freed, window)

    over_loop(url, work)


def test_the_servers_own_deadline(url: str, window: Window, photo: Image.Image, mask: Image.Image) -> None:
    with Client(url, timeout=1) as client, pytest.raises(DeadlineExceeded) as caught:
        client.inpaint(photo, mask, "a coat", **LONG)
    assert caught.value.code in (None, "DEADLINE")
    freed(window)


def test_ctrl_c_frees_the_rows(url: str, window: Window, photo: Image.Image, mask: Image.Image) -> None:
    def interrupt() -> None:
        at_work(window)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Client(url) as client:
        presser = threading.Thread(target=interrupt)
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            client.inpaint(photo, mask, "a coat", **LONG)
        presser.join()
        freed(window)
        assert client.inpaint(photo, mask, "a coat", num_inference_steps=2).images, "the server has survived it"


def test_cancelling_a_task_frees_the_rows(url: str, window: Window, photo: Image.Image, mask: Image.Image) -> None:
    async def work(client: AsyncClient) -> None:
        for _ in range(3):
            task = asyncio.create_task(client.inpaint(photo, mask, "a coat", **LONG))
            await asyncio.to_thread(at_work, window)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(freed, window)
        assert (await client.inpaint(photo, mask, "a coat", num_inference_steps=2)).images

    over_loop(url, work)


def test_leaving_early_frees_the_rows(url: str, window: Window, photo: Image.Image, mask: Image.Image) -> None:
    """Out of a loop over many, and out of a client with a handle under way."""
    short: dict[str, Any] = {"image": photo, "mask": mask, "prompt": "a coat", "num_inference_steps": 1}
    with Client(url) as client:
        many = client.inpaint_many([short, *[{**short, **LONG}] * 3], concurrency=4, progress=False)
        assert next(many).index == 0
        many.close()
        freed(window)
        client.submit_inpaint(photo, mask, "a coat", **LONG)
        at_work(window)
    freed(window)


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_with_previews(url: str, photo: Image.Image, mask: Image.Image) -> None:
    words: dict[str, Any] = {"num_inference_steps": 100, "preview_every": 10, "height": 128, "width": 128}

    def check(news: list[Any]) -> None:
        steps = [each.step for each in news]
        assert steps == sorted(steps)
        assert (news[-1].state, news[-1].step, news[-1].total) == ("done", 100, 100)
        assert len(set(steps)) > 10
        assert any(each.eta is not None and each.eta > 0 for each in news)
        assert next(each.preview.size for each in news if each.preview) == (16, 16)

    with Client(url, timeout=120) as client:
        handles = [client.submit_inpaint(photo, mask, "a coat", **words) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            for news in pool.map(lambda handle: list(handle.progress()), handles):
                check(news)
        assert all(handle.result().images for handle in handles)
        late = client.submit_inpaint(photo, mask, "a coat", num_inference_steps=2)
        late.result()
        assert [news.state for news in late.progress()] in ([], ["done"])

    async def work(client: AsyncClient) -> None:
        handles = [client.submit_inpaint(photo, mask, "a coat", **words) for _ in range(4)]

        async def follow(handle: Any) -> list[Any]:
            return [news async for news in handle.progress()]

        for news in await asyncio.gather(*map(follow, handles)):
            check(news)
        assert all([(await handle).images for handle in handles])

    over_loop(url, work)


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(url: str, tmp_path: Path, photo: Image.Image, mask: Image.Image, mutual: bool) -> None:
    certificates(tmp_path)
    own = {"certificate_file": tmp_path / "client.pem", "key_file": tmp_path / "client.key"} if mutual else {}
    right = TLS(ca_file=tmp_path / "ca.pem", **own)
    wrong = [TLS(), TLS(ca_file=tmp_path / "stranger.pem", **own)]
    if mutual:
        strange = {"certificate_file": tmp_path / "stranger.pem", "key_file": tmp_path / "stranger.key"}
        wrong += [TLS(ca_file=tmp_path / "ca.pem"), TLS(ca_file=tmp_path / "ca.pem", **strange)]
    with proxy(url, tmp_path, mutual=mutual) as secure:
        with Client(secure, tls=right, timeout=60) as client:
            handle = client.submit_inpaint(photo, mask, "a coat", num_inference_steps=10, seed=3)
            assert [news.state for news in handle.progress()][-1] == "done"
            expected = handle.result()

        async def work(client: AsyncClient) -> Result:
            return await client.inpaint(photo, mask, "a coat", num_inference_steps=10, seed=3)

        assert over_loop(secure, work, tls=right).encoded == expected.encoded
        for tls in wrong:
            with Client(secure, tls=tls, timeout=60, retries=0) as client, pytest.raises(ServerUnavailable):
                client.inpaint(photo, mask, "a coat")
            with pytest.raises(ServerUnavailable):
                over_loop(secure, work, tls=tls, retries=0)
