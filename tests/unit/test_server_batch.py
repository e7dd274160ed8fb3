"""Requests that share a call of a graph (dressform_server.batch)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dressform_server import batch


def request(rows: int, width: int, value: float = 0.0) -> dict[str, batch.Array]:
    """Inputs of one request: x [rows, width] and t [rows]."""
    return {"x": np.full((rows, width), value, np.float32), "t": np.full(rows, value, np.float32)}


def test_only_equal_shapes_beyond_the_rows_go_together() -> None:
    requests = [request(1, 3), request(2, 5), request(4, 3), request(1, 5)]
    assert batch.groups(requests, batched=True) == [[0, 2], [1, 3]]


def test_without_batching_each_goes_alone() -> None:
    assert batch.groups([request(1, 3), request(1, 3)], batched=False) == [[0], [1]]


def test_a_request_alone_is_not_copied() -> None:
    alone = request(2, 3)
    assert batch.joined([alone])["x"] is alone["x"]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_each_request_gets_its_own_rows_back(rows: list[int]) -> None:
    requests = [request(count, 2, value) for value, count in enumerate(rows)]
    parts = batch.split(batch.joined(requests), batch.row_counts(requests))
    for own, part in zip(requests, parts, strict=True):
        assert part.keys() == own.keys()
        for name in own:
            np.testing.assert_array_equal(part[name], own[name])


def test_rows_that_differ_within_a_request_are_refused() -> None:
    with pytest.raises(ValueError, match="x 2, t 3"):
        batch.row_counts([{"x": np.zeros((2, 1)), "t": np.zeros(3)}])


def test_an_output_that_lost_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'y' has shape \[3, 1\], not the 4 rows"):
        batch.split({"y": np.zeros((3, 1))}, [1, 3])
