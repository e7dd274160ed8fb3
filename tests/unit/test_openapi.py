"""The OpenAPI description: valid, and the one in ``docs/``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from dressform import openapi
from dressform_contract import PARAMETERS, TASK_PARAMETERS

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"


def body(task: str) -> dict[str, object]:
    post = openapi.description()["paths"][f"/v2/models/{task}/generate"]["post"]
    schema: dict[str, object] = post["requestBody"]["content"]["application/json"]["schema"]
    return schema


def test_it_is_valid() -> None:
    validate(openapi.description())


def test_the_file_is_up_to_date() -> None:
    assert json.loads(FILE.read_text()) == openapi.description(), (
        "run `python -m dressform.openapi > docs/openapi.json`"
    )


@pytest.mark.parametrize("task", TASK_PARAMETERS)
def test_it_has_the_contracts_options(task: str) -> None:
    properties = body(task)["properties"]
    assert set(TASK_PARAMETERS[task]) <= set(properties)
    for name in TASK_PARAMETERS[task]:
        default = properties[name].get("default")
        assert default == PARAMETERS[name].default_for(task)
