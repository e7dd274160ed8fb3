"""Outside the blurred mask not one pixel changes, at the original's size, over every protocol."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dressform import Client
from dressform_server import Server


def data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def from_data_url(text: str) -> Image.Image:
    header, _, body = text.partition(",")
    assert header == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def by_infer(server: Server, inputs: dict[str, str], parameters: dict[str, Any]) -> Image.Image:
    """Plain JSON to Triton's /infer: the KServe protocol."""
    tensors = [{"name": k, "shape": [1, 1], "datatype": "BYTES", "data": [v]} for k, v in inputs.items()]
    body = {"inputs": tensors, "parameters": parameters}
    answer = post(f"{server.http_url}/v2/models/inpaint/infer", body)
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["seeds"] == [parameters["seed"]]
    return from_data_url(outputs["images"][0])


def by_generate(server: Server, inputs: dict[str, str], parameters: dict[str, Any]) -> Image.Image:
    """Flat JSON to Triton's /generate."""
    answer = post(f"{server.http_url}/v2/models/inpaint/generate", {**inputs, **parameters})
    assert answer["seeds"] == parameters["seed"]
    return from_data_url(answer["images"])


def check_outside(result: Image.Image, photo: Image.Image, mask: Image.Image, blur: float) -> None:
    outside = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur)) if blur else mask) == 0
    assert result.size == photo.size
    changed = (np.asarray(result) != np.asarray(photo)).any(axis=2)
    assert not changed[outside].any(), f"{changed[outside].sum()} pixels changed outside the mask"
    assert changed[~outside].mean() > 0.5, "nothing was repainted"


@pytest.mark.parametrize("how", [by_infer, by_generate])
def test_json_with_data_urls(server: Server, photo: Image.Image, mask: Image.Image, how: Any) -> None:
    inputs = {"image": data_url(photo), "mask": data_url(mask), "prompt": "a red coat"}
    result = how(server, inputs, {"num_inference_steps": 2, "seed": 4, "guidance_scale": 5})
    check_outside(result, photo, mask, blur=4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_blur": 0.0},
        {"mask_blur": 12.5},
        {"composite": "hard"},
        {"resize_mode": "fill"},
        {"resize_mode": "crop"},
        {"padding_mask_crop": 10},
        {"num_images": 2},
        {"output_format": "npy"},
        {"output_format": "data_url"},
        {"height": 72, "width": 104},
    ],
    ids=str,
)
def test_outside_the_mask_nothing_changes(
    client: Client, photo: Image.Image, mask: Image.Image, options: dict[str, Any]
) -> None:
    result = client.inpaint(photo, mask, "a red coat", num_inference_steps=2, seed=4, **options)
    blur = 0 if options.get("composite") == "hard" else options.get("mask_blur", 4)
    for image in result.images:
        check_outside(image, photo, mask, blur)
    assert np.array_equal(np.asarray(result.mask_used), np.asarray(mask))


def test_mask_adjustments_come_back_in_mask_used(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    grown = client.inpaint(photo, mask, "a", num_inference_steps=1, mask_grow=5).mask_used
    expected = Image.new("L", photo.size, 0)
    expected.paste(255, (35, 45, 115, 130))
    assert np.array_equal(np.asarray(grown), np.asarray(expected))
    inverted = client.inpaint(photo, mask, "a", num_inference_steps=1, mask_invert=True).mask_used
    assert np.array_equal(np.asarray(inverted), 255 - np.asarray(mask))


def test_composite_none_returns_the_bare_picture(client: Client, photo: Image.Image, mask: Image.Image) -> None:
    result = client.inpaint(photo, mask, "a", num_inference_steps=1, composite="none", height=72, width=104)
    assert result.image.size == (104, 72)


@pytest.mark.parametrize(("output_format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_output_formats(client: Client, photo: Image.Image, mask: Image.Image, output_format: Any, kind: str) -> None:
    result = client.inpaint(photo, mask, "a", num_inference_steps=1, output_format=output_format)
    assert Image.open(io.BytesIO(result.encoded[0])).format == kind


def test_tryon_repaints_the_mask_alone(
    client: Client, photo: Image.Image, mask: Image.Image, garment: Image.Image
) -> None:
    first = client.tryon(photo, garment, mask=mask, num_inference_steps=3, seed=1)
    check_outside(first.image, photo, mask, blur=4)
    other = client.tryon(photo, garment.rotate(90), mask=mask, num_inference_steps=3, seed=1)
    assert not np.array_equal(first.image, other.image), "the garment changed nothing"


def test_an_outfit_dresses_pass_after_pass(
    client: Client, photo: Image.Image, mask: Image.Image, garment: Image.Image
) -> None:
    lower = Image.new("L", photo.size, 0)
    lower.paste(255, (0, 100, 30, 130))
    options: dict[str, Any] = {"num_inference_steps": 2, "seed": 1, "mask_blur": 0.0}
    both = client.tryon(photo, [garment, garment.rotate(90)], mask=[mask, lower], **options)
    first = client.tryon(photo, garment, mask=mask, **options)
    upper = np.asarray(mask) > 0
    assert np.array_equal(np.asarray(both.image)[upper], np.asarray(first.image)[upper])
    assert not np.array_equal(np.asarray(both.image), np.asarray(first.image))
