"""Synthetic records, one for each benchmark, with everything that a record may have. No figure in them was measured."""

from __future__ import annotations

import math
from typing import Any


def _common(benchmark: str, day: int, **settings: Any) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "created": f"2026-03-{day:02}T12:00:00+00:00",
        "command": f"dressform bench {benchmark} --example",
        "machine": {"name": "2 × Example CPU (synthetic)", "cpus": 2, "memory_gigabytes": 23.5, "gpu": None},
        "versions": {"dressform": "0.1.0", "torch": "2.13.0"},
        "settings": settings,
        "model": "example",
    }


def _peer(
    name: str, users: int, seconds: float, first: float, peak: float, psnr: float, limit: float
) -> dict[str, Any]:
    return {
        "peer": name,
        "users": users,
        "seconds": seconds,
        "images_per_minute": round(60 / seconds, 3),
        "times_as_fast": round((1.08 if users == 1 else 1.0) / seconds, 2),
        "first_image_seconds": first,
        "peak_gigabytes": peak,
        "psnr": psnr,
        "limit_seconds": limit,
        "share_of_limit": round(limit / seconds, 3),
    }


PEERS: dict[str, Any] = {
    **_common("peers", 1, images=3, rounds=1),
    **{"height": 128, "width": 96, "steps": 20},
    "limit": {"flops_per_image": 8.28e10, "flops_per_second": {"float32": 1.46e11, "bfloat16": 3.68e11}},
    "rows": [
        _peer("diffusers-fp32", 1, 1.08, 8.0, 0.63, 100.0, 0.567),
        _peer("diffusers-bf16", 1, 0.86, 7.4, 0.60, 45.4, 0.225),
        _peer("diffusers-compile", 1, 0.79, 116.9, 0.82, 86.0, 0.567),
        _peer("optimum", 1, 0.95, 11.8, 0.67, 84.8, 0.567),
        _peer("bare:onnxruntime", 1, 0.80, 9.9, 0.65, 87.8, 0.567),
        _peer("served:onnxruntime", 1, 0.84, 3.5, 0.95, 87.8, 0.567),
        _peer("bare:openvino", 1, 0.362, 9.1, 0.70, 46.2, 0.225),
        _peer("served:openvino", 1, 0.391, 3.6, 1.10, 46.2, 0.225),
        _peer("bare:openvino-int8", 1, 0.301, 10.3, 0.71, 33.4, 0.225),
        _peer("served:openvino-int8", 1, 0.325, 3.3, 1.11, 33.4, 0.225),
        _peer("diffusers-fp32", 8, 1.00, 8.0, 0.63, 100.0, 0.567),
        _peer("diffusers-bf16", 8, 0.81, 7.4, 0.60, 45.4, 0.225),
        _peer("diffusers-compile", 8, 0.77, 116.9, 0.82, 86.0, 0.567),
        _peer("optimum", 8, 0.93, 11.8, 0.67, 84.8, 0.567),
        _peer("bare:onnxruntime", 8, 0.72, 9.9, 0.85, 87.8, 0.567),
        _peer("served:onnxruntime", 8, 0.81, 3.5, 1.09, 87.8, 0.567),
        _peer("bare:openvino", 8, 0.300, 9.1, 0.82, 46.2, 0.225),
        _peer("served:openvino", 8, 0.328, 3.6, 1.24, 46.2, 0.225),
        _peer("bare:openvino-int8", 8, 0.241, 10.3, 0.83, 33.4, 0.225),
        _peer("served:openvino-int8", 8, 0.270, 3.3, 1.27, 33.4, 0.225),
    ],
    "errors": {"optimum-intel": "ImportError: cannot import name '<missing>' from 'optimum.intel' & its parts"},
}


def _sample(number: int) -> dict[str, Any]:
    seconds, ramp = 5.0 * (number + 1), min(1.0, 5.0 * (number + 1) / 40)
    wave = math.sin(number / 3) + 0.6 * math.sin(number * 1.7)
    held = {
        "denoise": round(0.21 + 0.0004 * seconds / 60, 5),
        "tritonserver": round(0.33 + 0.003 * wave, 5),
        "unet": round(0.7 + 0.05 * ramp, 5),
    }
    return {
        "t": seconds,
        "users": round(32 * ramp),
        "requests_per_second": round(ramp * (3.1 + 0.25 * wave), 3),
        "failures": 0,
        "p50_seconds": round(0.5 + ramp * (5.6 + 0.4 * wave), 3),
        "p95_seconds": round(0.9 + ramp * (10.8 + 0.9 * wave), 3),
        "p99_seconds": round(1.2 + ramp * (13.1 + 1.2 * wave), 3),
        "waiting_ms": round(20 + 180 * ramp + 30 * wave, 2),
        "batch": round(1 + 14 * ramp + 0.8 * wave, 2),
        "memory_gigabytes": round(sum(held.values()), 5),
        "memory_by_process": held,
    }


def _kind(name: str, protocol: str, requests: int, p50: float, p95: float) -> dict[str, Any]:
    counts = {"requests": requests, "failures": 0}
    return {"name": name, "protocol": protocol, **counts, "p50_seconds": p50, "p95_seconds": p95}


LOAD: dict[str, Any] = {
    **_common("load", 2, engine="openvino", arguments=["--headless", "-u", "32", "-r", "4", "-t", "10m"]),
    "summary": {
        "requests": 1829,
        "failures": 0,
        "requests_per_second": 3.04,
        "p50_seconds": 6.1,
        "p95_seconds": 11.9,
        "p99_seconds": 14.3,
        "waiting_ms": 198.2,
        "batch": 14.6,
    },
    "series": [_sample(number) for number in range(120)],
    "by_name": [
        _kind("inpaint, 4 to 8 steps", "grpc", 402, 2.9, 4.8),
        _kind("try-on, 20 steps", "grpc", 521, 7.1, 12.4),
        _kind("inpaint, 4 to 8 steps", "http", 398, 3.0, 4.9),
        _kind("try-on, 20 steps", "http", 508, 7.2, 12.6),
    ],
    "errors": [],
}


def _offered(mode: str, load: float, share: float, p50: float, p95: float, refused: int = 0) -> dict[str, Any]:
    rate = round(8.2 * load, 3)
    return {
        "mode": mode,
        "load": load,
        "offered_per_s": rate,
        "offered": round(20 * rate),
        "goodput_per_s": round(rate * share, 3),
        "share_within_slo": share,
        "p50_s": p50,
        "p95_s": p95,
        "p99_s": round(1.25 * p95, 3),
        "mean_batch": round(1 + 2 * load, 2),
        "refused": refused,
        "failed": 0,
    }


OPENLOOP: dict[str, Any] = {
    **_common("openloop", 3, pattern="poisson", slo=2.0, kept=0.95, seconds=5, repeats=4, pixels=[96, 128]),
    "pattern": "poisson",
    "slo": "2 x the solo time of the kind",
    "solo_capacity_per_s": 8.2,
    "kinds": [{"kind": "4 lcm 1", "weight": 30, "solo_ms": {"step": 44.8, "request": 49.2}, "slo_ms": 90.8}],
    "rows": [
        _offered("step", 0.5, 1.0, 0.10, 0.39),
        _offered("step", 1.0, 0.99, 0.12, 0.48),
        _offered("step", 1.476, 0.955, 0.15, 0.62),
        _offered("step", 1.5, 0.93, 0.16, 0.66),
        _offered("step", 2.0, 0.61, 0.31, 1.42),
        _offered("request", 0.5, 0.97, 0.14, 0.51),
        _offered("request", 0.8, 0.951, 0.18, 0.72),
        _offered("request", 1.0, 0.59, 0.30, 1.21),
        _offered("request", 1.5, 0.22, 0.98, 3.20),
        _offered("request", 2.0, 0.05, 4.10, 9.90, 33),
    ],
    "kept_share": 0.95,
    "slo_rate_per_s": {"step": 12.1, "request": 6.56},
}


def _jobs(jobs: int, served: float, makespan: float, bare: float, **parts: float) -> dict[str, Any]:
    rest = round(1000 * served - sum(parts.values()), 2)
    return {
        "jobs": jobs,
        "served_seconds": served,
        "makespan_seconds": makespan,
        "bare_seconds": bare,
        "served_over_bare": round(makespan / bare, 3),
        "parts_ms": {**parts, "handing_over": rest},
    }


OVERHEAD: dict[str, Any] = {
    **_common("overhead", 4, engine="onnxruntime", steps=20, repeats=5, onnx_threads=None),
    **{"height": 128, "width": 96},
    "rows": [
        _jobs(
            *(1, 0.845, 0.845, 0.8),
            **{"client": 2.2, "transfer": 2.0, "preprocess": 6.1, "encode": 61.0, "wait": 0.6},
            **{"unet": 690.0, "between_steps": 21.4, "decode": 55.3, "postprocess": 4.9},
        ),
        _jobs(
            *(4, 2.91, 2.95, 2.74),
            **{"client": 5.2, "transfer": 4.0, "preprocess": 13.1, "encode": 201.0, "wait": 14.6},
            **{"unet": 2418.0, "between_steps": 44.4, "decode": 180.3, "postprocess": 19.9},
        ),
        _jobs(
            *(16, 10.9, 11.4, 10.5),
            **{"client": 9.2, "transfer": 12.0, "preprocess": 63.1, "encode": 801.0, "wait": 151.6},
            **{"unet": 8920.0, "between_steps": 139.4, "decode": 690.3, "postprocess": 79.9},
        ),
    ],
}


def _fleet(servers: int, routing: str, load: float) -> dict[str, Any]:
    crowd = load * (1.0 if routing == "least_loaded" else 1 + 0.35 * (1 - 1 / servers))
    share = round(1 / (1 + math.exp(6 * (crowd - 1.75))), 4)
    rate = round(load * servers * 8.2, 4)
    return {
        "servers": servers,
        "routing": routing,
        "load": load,
        "rate_per_s": rate,
        "offered_per_s": rate,
        "goodput_per_s": round(rate * share, 4),
        "share_within_slo": share,
        "share_interval": [round(max(0.0, share - 0.01), 4), round(min(1.0, share + 0.01), 4)],
        "p50_s": round(0.1 + 0.05 * crowd**2, 4),
        "p95_s": round(0.35 + 0.2 * crowd**3, 4),
        "p99_s": round(0.45 + 0.3 * crowd**3, 4),
    }


def _validated(load: float, measured: tuple[float, ...], simulated: tuple[float, ...]) -> dict[str, Any]:
    names = ("p50_s", "p95_s", "goodput_per_s")
    return {
        "load": load,
        "rate_per_s": round(load * 8.2, 4),
        "measured": {**dict(zip(names, measured)), "offered_per_s": round(load * 8.4, 4), "offered": 400},
        "simulated": dict(zip(names, simulated)),
        "error": {name: round(b / a - 1, 4) for name, a, b in zip(names, measured, simulated)},
        "spread": dict.fromkeys(names, 0.08),
    }


def _enough(rate: float, servers: int | None, routing: str) -> dict[str, Any]:
    spread = [250, None] if servers is None else [servers - servers // 40, servers + servers // 40]
    share = 0.956 if servers else 0.931
    return {
        "rate_per_s": rate,
        "routing": routing,
        "offered_per_s": round(1.02 * rate, 4),
        "share_within_slo": share,
        "share_interval": [round(share - 0.006, 3), round(share + 0.005, 3)],
        "servers": servers,
        "servers_range": spread,
    }


ROUTING = ("round_robin", "least_loaded")

SIMULATE: dict[str, Any] = {
    **_common("simulate", 5, batching="step", slo=2.0, kept=0.95, seconds=6.1),
    "step_time_model": {
        "name": "example",
        "source": "synthetic",
        "step_seconds": {"1": 0.0055, "2": 0.0068, "4": 0.0093, "8": 0.0144, "16": 0.0244, "32": 0.0446},
        "overlap": 0.56,
    },
    "routing": list(ROUTING),
    "slo": "2 x the solo time of the kind",
    "solo_capacity_per_s": 8.2,
    "rows": [
        _fleet(servers, routing, load)
        for servers in (1, 4, 16, 64, 256)
        for load in (0.5, 1.0, 1.5)
        for routing in ROUTING
    ],
    "servers_needed": [
        _enough(rate, servers, routing)
        for rate, counts in ((8.2, (1, 1)), (82.0, (9, 7)), (820.0, (88, 66)), (4000.0, (None, 241)))
        for routing, servers in zip(ROUTING, counts)
    ],
    "kept_share": 0.95,
    "validation": [
        _validated(0.5, (0.118, 0.484, 3.9), (0.127, 0.446, 4.0)),
        _validated(1.0, (0.164, 0.693, 7.1), (0.160, 0.668, 6.9)),
        _validated(1.5, (0.250, 0.989, 6.1), (0.221, 0.889, 6.9)),
    ],
}

STEP_OVERHEAD: dict[str, Any] = {
    **_common("step-overhead", 6, size="tiny", steps=100, repeats=5),
    "rows": [
        {"jobs": 1, "unet_rows": 2, "mean_batch": 1.0, "step_ms": 0.9, "bare_ms": 0.02, "overhead_ms": 0.88},
        {"jobs": 4, "unet_rows": 8, "mean_batch": 3.9, "step_ms": 1.3, "bare_ms": 0.03, "overhead_ms": 1.27},
        {"jobs": 16, "unet_rows": 32, "mean_batch": 15.5, "step_ms": 2.4, "bare_ms": 0.05, "overhead_ms": 2.35},
    ],
}

EXAMPLES: dict[str, dict[str, Any]] = {
    record["benchmark"]: record for record in (PEERS, LOAD, OPENLOOP, OVERHEAD, SIMULATE, STEP_OVERHEAD)
}
"""By benchmark."""
