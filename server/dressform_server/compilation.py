"""OpenVINO's properties, from the same parameters of ``config.pbtxt`` that Triton's native backend reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")


def properties(config: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Properties of a model ``config`` for ``Core.compile_model``; ``threads`` of a call where it does not say.

    Read are the parameters ``INFERENCE_NUM_THREADS``, ``COMPILATION_NUM_THREADS``, ``HINT_BF16`` (YES),
    ``NUM_STREAMS`` (a number, AUTO or NUMA) and ``PERFORMANCE_HINT``; others are ignored, as there. Only this reads
    ``CPU_RUNTIME_CACHE_CAPACITY``: how many entries OpenVINO keeps, of each kind of node, for shapes it has seen.

    Raises:
        ValueError: naming the parameter, what came and what is allowed.
    """
    readers: dict[str, Callable[[str, str], dict[str, Any]]] = {
        "INFERENCE_NUM_THREADS": _number,
        "COMPILATION_NUM_THREADS": _number,
        "HINT_BF16": _bfloat16,
        "NUM_STREAMS": _streams,
        "PERFORMANCE_HINT": _performance,
        "CPU_RUNTIME_CACHE_CAPACITY": _number,
    }
    chosen: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads} if threads else {}
    for key, value in config.get("parameters", {}).items():
        if key in readers:
            chosen |= readers[key](key, value["string_value"])
    return chosen


def _number(key: str, text: str) -> dict[str, Any]:
    if not text.isdecimal():
        raise ValueError(f"parameter {key} must be a number from 0, not {text!r}")
    return {key: int(text)}


def _bfloat16(key: str, text: str) -> dict[str, Any]:
    if text.upper() != "YES":
        raise ValueError(f"parameter {key} must be YES, not {text!r}")
    return {"INFERENCE_PRECISION_HINT": "bf16"}


def _streams(key: str, text: str) -> dict[str, Any]:
    return {key: text.upper()} if text.upper() in ("AUTO", "NUMA") else _number(key, text)


def _performance(key: str, text: str) -> dict[str, Any]:
    if text.upper() not in _HINTS:
        raise ValueError(f"parameter {key} must be one of {', '.join(_HINTS)}, not {text!r}")
    return {key: text.upper()}
