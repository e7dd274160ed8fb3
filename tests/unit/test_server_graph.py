"""A model's configuration against its graph, by the native backend's rules (dressform_server.graph)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dressform_server.graph import GraphMismatch, Tensor, check

GRAPH_INPUTS = [
    Tensor.of_graph(SimpleNamespace(name="sample", type="tensor(float)", shape=["rows", 4, "h", "w"])),
    Tensor.of_graph(SimpleNamespace(name="timestep", type="tensor(float)", shape=["rows"])),
]
GRAPH_OUTPUTS = [Tensor.of_graph(SimpleNamespace(name="out", type="tensor(float)", shape=["rows", 4, None, "w"]))]


def config(**changes: Any) -> dict[str, Any]:
    """A fitting configuration with some of its fields changed, as in ``sample__dims=[…]``."""
    made: dict[str, Any] = {
        "max_batch_size": 8,
        "input": [
            {"name": "sample", "data_type": "TYPE_FP32", "dims": [4, -1, -1]},
            {"name": "timestep", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}},
        ],
        "output": [{"name": "out", "data_type": "TYPE_FP32", "dims": [4, -1, -1]}],
    }
    for path, value in changes.items():
        tensor, _, field = path.partition("__")
        if not field:
            made[path] = value
        for entry in made["input"] + made["output"]:
            if entry["name"] == tensor:
                entry[field] = value
    return made


def test_a_fitting_configuration_passes() -> None:
    check(config(), GRAPH_INPUTS, GRAPH_OUTPUTS)


def test_an_input_may_be_fixed_where_the_graph_is_variable() -> None:
    check(config(sample__dims=[4, 64, 64]), GRAPH_INPUTS, GRAPH_OUTPUTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample__dims": [9, -1, -1]}, ["input 'sample'", "[-1, 9, -1, -1]", "[-1, 4, -1, -1]"]),
        ({"sample__dims": [-1, -1, -1]}, ["input 'sample'", "[-1, -1, -1, -1]"]),
        ({"sample__dims": [4, -1]}, ["input 'sample'", "[-1, 4, -1]"]),
        ({"sample__data_type": "TYPE_FP16"}, ["input 'sample'", "float16", "float"]),
        ({"sample__data_type": "TYPE_FANCY"}, ["'sample'", "TYPE_FANCY"]),
        ({"sample__name": "latents"}, ["lacks", "'sample'"]),
        ({"sample__optional": True}, ["'sample'", "optional"]),
        ({"timestep__reshape": None}, ["input 'timestep'", "[-1, 1]", "[-1]"]),
        ({"out__dims": [4, 64, 64]}, ["output 'out'", "[-1, 4, 64, 64]", "[-1, 4, -1, -1]"]),
        ({"out__name": "noise"}, ["no output 'noise'", "'out'"]),
        ({"max_batch_size": 0}, ["input 'sample'", "[4, -1, -1]"]),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_name(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(GraphMismatch) as refusal:
        check(config(**changes), GRAPH_INPUTS, GRAPH_OUTPUTS)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_an_input_the_graph_lacks_is_refused() -> None:
    with pytest.raises(GraphMismatch, match=r"no input 'timestep'; it has 'sample'"):
        check(config(), GRAPH_INPUTS[:1], GRAPH_OUTPUTS)


def test_a_graph_with_a_fixed_batch_cannot_batch() -> None:
    fixed = [Tensor("sample", "float", (2, 4, -1, -1)), GRAPH_INPUTS[1]]
    with pytest.raises(GraphMismatch, match=r"max_batch_size .* \[2, 4, -1, -1\]"):
        check(config(), fixed, GRAPH_OUTPUTS)


def test_without_batching_a_scalar_is_configured_as_one() -> None:
    scalar = [Tensor("s", "int64", ())]
    entry = {"name": "s", "data_type": "TYPE_INT64", "dims": [1]}
    check({"max_batch_size": 0, "input": [entry], "output": []}, scalar, [])
    with pytest.raises(GraphMismatch, match=r"scalar.*\[2\] must be \[1\]"):
        check({"max_batch_size": 0, "input": [entry | {"dims": [2]}], "output": []}, scalar, [])
