"""SIGTERM under load: what was accepted is answered, what is new is refused and may go elsewhere, nothing is left."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from dressform import Client, ServerUnavailable
from e2e.held_parser import asked, with_held_parser
from e2e.launching import gone, launched_ready, segments
from figures import painted, person
from waiting import wait_until


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_sigterm_answers_what_was_accepted_and_refuses_the_rest(
    tiny_tryon_repository: Path, photo: Image.Image, mask: Image.Image, capfd: pytest.CaptureFixture[str], protocol: str
) -> None:
    launched, address = launched_ready(tiny_tryon_repository, capfd, protocol=protocol)
    family = psutil.Process(launched.pid).children(recursive=True)
    with Client(f"{protocol}://{address}", timeout=60, retries=0) as client, ThreadPoolExecutor(8) as pool:
        options: dict[str, Any] = {"num_inference_steps": 150, "height": 128, "width": 128}
        handles = [client.submit_inpaint(photo, mask, "a coat", **options) for _ in range(8)]
        for handle in handles:  # accepted: its first step is told
            assert any(news.step > 0 for news in handle.progress())
        launched.send_signal(signal.SIGTERM)

        def ask() -> None:
            while not all(handle.done() for handle in handles):  # the signal takes a moment
                client.inpaint(photo, mask, "a coat", num_inference_steps=1)

        with pytest.raises(ServerUnavailable) as refused:
            ask()
        assert refused.value.code == "STOPPING"
        handles[0].cancel()  # still heard
        done = list(pool.map(lambda handle: handle.result(), handles[1:]))
        assert [result.info["steps"] for result in done] == [150] * 7
    assert launched.wait(30) == 0
    assert gone(family, within=1)
    assert not segments(launched)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_sigterm_answers_the_mask_that_is_being_made(
    colour_parser_repository: Path,
    tmp_path: Path,
    photo: Image.Image,
    mask: Image.Image,
    capfd: pytest.CaptureFixture[str],
    protocol: str,
) -> None:
    """It has no place in the job table, and is waited for all the same."""
    held = tmp_path / "held"
    held.touch()
    repository = with_held_parser(colour_parser_repository, tmp_path / "repository", held)
    launched, address = launched_ready(repository, capfd, protocol=protocol)
    with Client(f"{protocol}://{address}", timeout=60, retries=0) as client, ThreadPoolExecutor(2) as pool:
        making = pool.submit(client.mask, painted(person()), "upper")
        wait_until(lambda: asked(held), 30)
        launched.send_signal(signal.SIGTERM)

        def ask() -> None:
            for _ in range(100):  # the signal takes a moment
                client.inpaint(photo, mask, "a coat", num_inference_steps=1)

        with pytest.raises(ServerUnavailable) as refused:
            ask()
        assert refused.value.code == "STOPPING"
        late = pool.submit(client.mask, painted(person()), "upper")
        assert not making.done()
        held.unlink()
        assert np.asarray(making.result().mask_used).any()
        with pytest.raises(ServerUnavailable):
            late.result()
    assert launched.wait(30) == 0
    assert not segments(launched)
