"""Bad input gets a clear error that names the culprit, while a good request in flight is unharmed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from dressform import Client, InvalidRequest, Result
from dressform_server import Server
from e2e.raw import png, raw

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def bomb() -> bytes:
    """A PNG of 40,000 × 40,000 pixels in some kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return PNG_HEAD + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**7))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module", autouse=True)
def bystander(server: Server, photo: Image.Image, mask: Image.Image) -> Iterator[None]:
    """A good request that runs beside every test of this module, and must end as it does alone."""
    with Client(server.grpc_url, timeout=300) as client, ThreadPoolExecutor(1) as pool:

        def run() -> Result:
            return client.inpaint(photo, mask, "good", num_inference_steps=150, seed=1, solver="euler")

        alone = run()
        future: Future[Result] = pool.submit(run)
        yield
        assert np.array_equal(future.result().image, alone.image)


def refused(call: Any, *words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("junk", ["image", "no PNG, JPEG, WebP"]),
        ("empty", ["image", "0 bytes"]),
        ("truncated", ["image", "damaged PNG"]),
        ("bomb", ["image", "40000 × 40000", "64 megapixels"]),
        ("data_url", ["image", "base64"]),
        ("npy", ["image", "float64", "uint8"]),
        ("huge_npy", ["image", "64 megapixels"]),
        ("large", ["image", "32 MB"]),
        ("heic", ["image", "HEIC"]),
        ("gif", ["image", "no PNG, JPEG, WebP"]),
    ],
)
def test_bad_pictures(client: Client, photo: Image.Image, mask: Image.Image, name: str, words: list[str]) -> None:
    gif, npy = io.BytesIO(), io.BytesIO()
    photo.save(gif, "GIF")
    np.save(npy, np.zeros((4, 4, 3)))
    huge = (
        b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 900000), }".ljust(127)
        + b"\n"
    )
    pictures = {
        "junk": b"this is no picture at all",
        "empty": b"",
        "truncated": png(photo)[:5000],
        "bomb": bomb(),
        "data_url": b"data:image/png;base64,@@@@",
        "npy": npy.getvalue(),
        "huge_npy": huge,
        "large": PNG_HEAD + bytes(33 * 2**20),
        "heic": b"\x00\x00\x00\x18ftypheic" + bytes(100),
        "gif": gif.getvalue(),
    }
    refused(lambda: client.inpaint(pictures[name], mask, "a", num_inference_steps=1), *words)


def test_bad_masks(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    black = Image.new("L", photo.size, 0)
    refused(lambda: client.inpaint(photo, black, "a"), "mask", "empty")
    refused(lambda: client.inpaint(photo, mask, "a", mask_grow=-64), "mask", "empty", "mask_grow")
    refused(lambda: client.inpaint(photo, mask.resize((20, 30)), "a"), "mask", "150 × 130", "20 × 30")
    refused(lambda: client.inpaint(photo, b"junk", "a"), "mask")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_inference_steps": 0}, ["num_inference_steps", "1 to 150", "0"]),
        ({"num_inference_steps": 151}, ["num_inference_steps", "151"]),
        ({"num_inference_steps": 2.5}, ["num_inference_steps", "integer", "2.5"]),
        ({"num_inference_steps": True}, ["num_inference_steps", "integer", "True"]),
        ({"num_inference_steps": "20"}, ["num_inference_steps", "integer", "'20'"]),
        ({"guidance_scale": float("nan")}, ["guidance_scale", "finite", "nan"]),
        ({"guidance_scale": float("inf")}, ["guidance_scale", "inf"]),
        ({"guidance_scale": 31}, ["guidance_scale", "0 to 30", "31"]),
        ({"strength": 0.0}, ["strength", "0 excluded"]),
        ({"strength": 0.01, "num_inference_steps": 4}, ["strength", "none to run"]),
        ({"solver": "heun"}, ["solver", "ddim", "heun"]),
        ({"solver": "lcm", "num_inference_steps": 60}, ["lcm", "50", "60"]),
        ({"height": 70}, ["height", "multiple of 8", "70"]),
        ({"width": 100_000}, ["width", "100000"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"num_images": 5}, ["num_images", "1 to 4", "5"]),
        ({"mask_invert": 1}, ["mask_invert", "true or false", "1"]),
        ({"composite": "maybe"}, ["composite", "soft", "maybe"]),
    ],
    ids=str,
)
def test_bad_values(
    client: Client, photo: Image.Image, mask: Image.Image, options: dict[str, Any], words: list[str]
) -> None:
    refused(lambda: client.inpaint(photo, mask, "a", **options), *words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"parameters": {"num_inferense_steps": 2}}, ["num_inferense_steps", "did you mean num_inference_steps"]),
        ({"parameters": {"zzz": 2}}, ["zzz", "known are"]),
        ({"request_id": "x" * 150_000}, ["id must have at most 200 characters", "150000"]),
        ({"rows": 2}, ["batch-size"]),
        ({"sequence_id": 7, "sequence_start": True, "sequence_end": True}, ["sequence"]),
        ({"sequence_id": 7, "sequence_start": True}, ["sequence"]),
    ],
    ids=str,
)
def test_requests_past_our_client(
    server: Server, photo: Image.Image, mask: Image.Image, call: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        raw(server, photo, mask, client_timeout=60, **call)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", caught.value
    for word in words:
        assert word in caught.value.message(), caught.value.message()


def test_a_long_prompt_is_cut_with_a_warning(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    result = client.inpaint(photo, mask, "a very long coat " * 1800, num_inference_steps=1)
    assert any("30600 characters" in warning and "cut at" in warning for warning in result.warnings)
    assert client.inpaint(photo, mask, "a coat", num_inference_steps=1).warnings == []


def test_tryon_without_a_mask_says_what_to_do(client: Client, photo: Image.Image, garment: Image.Image) -> None:
    refused(lambda: client.tryon(photo, garment), "tryon needs a mask")


def test_tritons_own_timeout_is_a_deadline_too(server: Server, photo: Image.Image, mask: Image.Image) -> None:
    with pytest.raises(InferenceServerException, match="DRESSFORM_DEADLINE deadline_ms=120"):
        raw(server, photo, mask, timeout=120_000, parameters={"num_inference_steps": 150})


def test_a_passed_deadline_is_an_error_of_its_own(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    from dressform import DeadlineExceeded

    with pytest.raises(DeadlineExceeded, match="100 ms"):
        client.inpaint(photo, mask, "a", num_inference_steps=150, deadline_ms=100)
