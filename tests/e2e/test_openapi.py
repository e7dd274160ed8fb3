"""The server's JSON endpoints answer as the OpenAPI description says."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from dressform import openapi
from dressform_server import Server

DESCRIPTION = openapi.description()


def valid(value: Any, schema: dict[str, Any]) -> None:
    """Fails unless ``value`` is what ``schema`` allows; its references are the description's."""
    Draft202012Validator({**DESCRIPTION, **schema}).validate(value)


def url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def posted(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    """The answer to ``body``, which is as described; so is the answer."""
    operation = DESCRIPTION["paths"][path]["post"]
    valid(body, operation["requestBody"]["content"]["application/json"]["schema"])
    response = httpx.post(server.http_url + path, json=body, timeout=120)
    answer = response.json()
    if response.status_code == 200:
        valid(answer, operation["responses"]["200"]["content"]["application/json"]["schema"])
    else:
        assert f"{response.status_code // 100}XX" in operation["responses"]
        valid(answer, DESCRIPTION["components"]["schemas"]["Error"])
    return response


@pytest.mark.parametrize("number", [1, 2])
def test_inpaint(server: Server, photo: Image.Image, mask: Image.Image, number: int) -> None:
    options = {"num_inference_steps": 1, "seed": 7, "num_images": number, "output_format": "data_url"}
    body = {"image": url(photo), "mask": url(mask), "prompt": "a coat", **options}
    answer = posted(server, "/v2/models/inpaint/generate", body).json()
    assert answer["seeds"] == (7 if number == 1 else [7, 8])
    assert json.loads(answer["info"])["steps"] == 1


def test_tryon(server: Server, photo: Image.Image, mask: Image.Image, garment: Image.Image) -> None:
    body = {"person": url(photo), "garment": url(garment), "mask": url(mask), "num_inference_steps": 1}
    assert posted(server, "/v2/models/tryon/generate", body).status_code == 200


def test_mask(demo_server: Server) -> None:
    from dressform.app import gallery

    with Image.open(gallery.PEOPLE[0].path) as person:
        body = {"person": url(person), "category": "upper"}
    assert posted(demo_server, "/v2/models/mask/generate", body).status_code == 200


def test_a_refusal(server: Server, photo: Image.Image) -> None:
    body = {"image": url(photo), "mask": url(photo.resize((9, 9)).convert("L")), "prompt": "a coat"}
    response = posted(server, "/v2/models/inpaint/generate", body)
    assert response.status_code == 400
    assert "DRESSFORM_INVALID_ARGUMENT: " in response.json()["error"]


@pytest.mark.parametrize("action", ["list", "health", "about"])
def test_jobs(server: Server, action: str) -> None:
    answer = posted(server, "/v2/models/jobs/generate", {"action": action}).json()
    json.loads(answer["jobs"])


def test_readiness(server: Server) -> None:
    for path in ("/v2/health/ready", "/v2/models/tryon/ready"):
        assert httpx.get(server.http_url + path).status_code == 200
    assert httpx.get(server.http_url + "/v2/models/mask/ready").status_code == 400
