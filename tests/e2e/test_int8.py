"""The int8 engine from examples to pictures: calibrated, quantised, proven, and served by the real Triton."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
from PIL import Image

from dressform import Client
from dressform_export import export_pipeline, read_manifest
from dressform_export.calibration import Calibration
from dressform_server import Server
from e2e.conftest import differences

ENGINES = ["openvino-int8", "onnxruntime"]


@pytest.fixture(scope="module")
def int8_repository(tiny_tryon_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repository") / "int8"
    export_pipeline(tiny_tryon_source, out, engines=ENGINES, calibration=Calibration("wardrobe:2", samples=12))
    return out


@pytest.mark.slow
def test_the_unet_alone_is_quantised(int8_repository: Path) -> None:
    manifest = read_manifest(int8_repository)
    record, plain = manifest.engines["openvino-int8"], manifest.engines["onnxruntime"]
    assert (manifest.engine, record.precision, record.executed) == ("openvino-int8", "int8", True)
    assert manifest.calibration is not None
    assert (manifest.calibration.data, manifest.calibration.samples) == ("wardrobe:2", 12)
    for leaf, graph in record.graphs.items():
        types = {op.get_type_name() for op in openvino.Core().read_model(int8_repository / graph.file).get_ops()}
        assert ("FakeQuantize" in types) == (leaf == "unet"), leaf
        assert Path(graph.file).name == ("model.int8.xml" if leaf == "unet" else "model.xml")
    assert record.graphs["unet"].verification
    assert record.picture is not None
    assert record.picture.psnr >= record.picture.gate == 18
    data = int8_repository / "unet" / "1" / "model.int8.bin"
    assert data.stat().st_size < 0.5 * plain.graphs["unet"].bytes


@pytest.mark.slow
def test_int8_serves_the_picture(
    int8_repository: Path, photo: Image.Image, mask: Image.Image, garment: Image.Image
) -> None:
    """Both tasks, at sizes that calibration did not see."""
    options = {"num_inference_steps": 4, "seed": 3, "height": 72, "width": 104, "composite": "none"}
    made = {}
    for engine in ENGINES:
        with Server(int8_repository, http_port=0, grpc_port=0, metrics_port=0, engine=engine) as server:
            server.wait_ready(240)
            with Client(server.grpc_url, timeout=240) as client:
                made[engine] = [
                    client.inpaint(photo, mask, "a striped shirt", **options).image,
                    client.tryon(photo, garment, mask=mask, **options).image,
                ]
    for quantised, full in zip(*made.values(), strict=True):
        error = differences(quantised, full).astype(np.float64)
        assert error.max() > 0, "another engine cannot agree to the bit"
        psnr = 10 * np.log10(255**2 / (error**2).mean())
        assert psnr >= 18, f"{psnr:.1f} dB"
