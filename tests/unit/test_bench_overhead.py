"""Where a request's time goes: its parts are all of it."""

from __future__ import annotations

from typing import Any

import pytest

from dressform.status import ModelStatistics
from dressform_bench import overhead
from dressform_bench.overhead import Answer

STAGES = {"preprocess": 4.0, "encode": 34.0, "wait": 2.0, "denoise": 220.0, "decode": 46.0, "postprocess": 6.0}
INFO: dict[str, Any] = {"steps": 10, "milliseconds": {**STAGES, "total": sum(STAGES.values())}}
ANSWERS = [Answer(0.330, 0.322, INFO), Answer(0.350, 0.342, INFO)]


def model(name: str, succeeded: int, queue: float, compute: float) -> ModelStatistics:
    return ModelStatistics(name, "1", succeeded, 0, succeeded, queue + compute, queue, compute)


def statistics(requests: int, step: float) -> dict[str, ModelStatistics]:
    """After so many requests of ten steps (s each)."""
    n = requests
    models = [
        model("text_encoder", n, 0.001 * n, 0.010 * n),
        model("vae_encoder", n, 0.003 * n, 0.025 * n),
        model("unet", 10 * n, 0.0, 10 * n * step),
        model("vae_decoder", n, 0.004 * n, 0.040 * n),
    ]
    return {one.name: one for one in models}


def test_parts_are_the_whole_and_the_graphs_are_what_they_ran() -> None:
    parts = overhead.parts_of(ANSWERS, statistics(7, 0.5), later(statistics(7, 0.5), 0.020))
    assert sum(parts.values()) == pytest.approx(340)
    assert parts == pytest.approx(
        {
            "client": 8.0,
            "transfer": 332.0 - 312.0,
            "preprocess": 4.0,
            "encode": 25.0,
            "wait": 2.0 + 3.0 + 4.0,
            "unet": 200.0,
            "between_steps": 20.0,
            "decode": 40.0,
            "postprocess": 6.0,
            "handing_over": (34.0 - 25.0 - 3.0) + (46.0 - 40.0 - 4.0),
        }
    )


def later(before: dict[str, ModelStatistics], step: float) -> dict[str, ModelStatistics]:
    """Those after two more requests."""
    more = statistics(2, step)
    return {
        name: model(
            name,
            one.succeeded + more[name].succeeded,
            one.queue_seconds + more[name].queue_seconds,
            one.compute_seconds + more[name].compute_seconds,
        )
        for name, one in before.items()
    }


def test_the_unet_is_no_more_than_the_steps_it_is_in() -> None:
    """Calls of others may have been longer than this request's own."""
    parts = overhead.parts_of(ANSWERS, statistics(7, 0.5), later(statistics(7, 0.5), 0.030))
    assert (parts["unet"], parts["between_steps"]) == (220, 0)
