"""One export of several engines, served with each of them by the real Triton: the pictures agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dressform import Client
from dressform_server import Server
from e2e.conftest import differences

OPTIONS: dict[str, Any] = {"num_inference_steps": 4, "seed": 3, "height": 72, "width": 104, "composite": "none"}
PSNR = {"onnxruntime-fp16": 35.0, "openvino": 25.0}
"""Decibels of the final picture against FP32's, at least: the gates of the export."""


def pictures(repository: Path, engine: str, photo: Image.Image, mask: Image.Image) -> dict[int, Image.Image]:
    """By number of pictures asked for, the first: alone and in a batch."""
    with Server(repository, http_port=0, grpc_port=0, metrics_port=0, engine=engine) as server:
        server.wait_ready(240)
        with Client(server.grpc_url, timeout=240) as client:
            return {
                number: client.inpaint(photo, mask, "a striped shirt", num_images=number, **OPTIONS).images[0]
                for number in (1, 3)
            }


@pytest.fixture(scope="module")
def full(engines_repository: Path, photo: Image.Image, mask: Image.Image) -> Image.Image:
    return pictures(engines_repository, "onnxruntime", photo, mask)[1]


@pytest.mark.parametrize("engine", PSNR)
def test_each_engine_serves_the_same_picture(
    engines_repository: Path, full: Image.Image, photo: Image.Image, mask: Image.Image, engine: str
) -> None:
    served = pictures(engines_repository, engine, photo, mask)
    for image in served.values():
        error = differences(image, full).astype(np.float64)
        assert error.max() > 0, "another engine cannot agree to the bit"
        psnr = 10 * np.log10(255**2 / (error**2).mean())
        assert psnr >= PSNR[engine], f"{psnr:.1f} dB"
