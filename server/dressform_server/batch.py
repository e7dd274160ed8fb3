"""Several requests in one call of a graph: which can go together, and whose rows came back.

Shapes are those of numpy arrays; rows are axis 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]


def groups(requests: Sequence[Arrays], batched: bool) -> list[list[int]]:
    """Indices of ``requests`` that share a call: those whose inputs have the same names and shapes beyond axis 0.

    In the order of arrival. Without batching each request is a group of its own.
    """
    if not batched:
        return [[index] for index in range(len(requests))]
    found: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for index, arrays in enumerate(requests):
        key = tuple(sorted((name, array.shape[1:]) for name, array in arrays.items()))
        found.setdefault(key, []).append(index)
    return list(found.values())


def joined(requests: Sequence[Arrays]) -> dict[str, Array]:
    """The inputs of one call: ``requests`` below each other on axis 0 (one request alone is not copied)."""
    if len(requests) == 1:
        return dict(requests[0])
    return {name: np.concatenate([arrays[name] for arrays in requests]) for name in requests[0]}


def row_counts(requests: Sequence[Arrays]) -> list[int]:
    """Rows of each request.

    Raises:
        ValueError: if the inputs of one request differ in rows.
    """
    counts = []
    for arrays in requests:
        rows = {name: array.shape[0] for name, array in arrays.items()}
        if len(set(rows.values())) != 1:
            raise ValueError("inputs of one request differ in rows: " + ", ".join(f"{n} {r}" for n, r in rows.items()))
        counts.append(next(iter(rows.values())))
    return counts


def split(outputs: Arrays, counts: Sequence[int]) -> list[dict[str, Array]]:
    """The outputs of one call by request, as views: request i has ``counts[i]`` rows.

    Raises:
        ValueError: if an output has other than ``sum(counts)`` rows.
    """
    total = sum(counts)
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            raise ValueError(f"output {name!r} has shape {list(array.shape)}, not the {total} rows that went in")
    ends = np.cumsum(counts)
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for count, end in zip(counts, map(int, ends), strict=True)
    ]
