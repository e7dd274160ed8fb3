"""Where a request's time goes: its parts are all of it."""

from __future__ import annotations

from typing import Any

import pytest

from dressform_bench import overhead

INFO: dict[str, Any] = {
    "steps": 10,
    "milliseconds": {
        "preprocess": 4.0,
        "encode": 30.0,
        "wait": 2.0,
        "denoise": 220.0,
        "decode": 40.0,
        "postprocess": 6.0,
        "total": 305.0,
    },
}


def test_parts_are_the_whole() -> None:
    parts = overhead.of_request(0.32, INFO, call_ms=20.0)
    assert sum(parts.values()) == pytest.approx(320)
    assert parts["unet"] == 200
    assert parts["between_steps"] == 20
    assert parts["client"] == pytest.approx(15)
    assert parts["other"] == pytest.approx(3)


def test_the_unet_is_no_more_than_the_steps_it_is_in() -> None:
    """Calls of others may have been longer than this request's own."""
    parts = overhead.of_request(0.32, INFO, call_ms=30.0)
    assert (parts["unet"], parts["between_steps"]) == (220, 0)
