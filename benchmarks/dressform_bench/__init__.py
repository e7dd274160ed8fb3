"""Dressform's benchmarks; ``dressform bench`` lists and runs them."""

BENCHMARKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "peers": ("the same pictures by diffusers, optimum and each engine", ("-m", "dressform_bench.peers")),
    "load": ("users by gRPC and HTTP, as many as you like (Locust)", ("-m", "dressform_bench.load")),
    "overhead": ("where each millisecond of a request goes", ("-m", "dressform_bench.overhead")),
    "openloop": ("the rate that keeps the SLO, by step and by request", ("-m", "dressform_bench.openloop")),
    "simulate": ("fleets of 1 to 256 servers, simulated by the real scheduler", ("-m", "dressform_bench.simulate")),
    "report": ("a page of the runs that were kept, with charts", ("-m", "dressform_bench.report")),
    "step-overhead": ("what lies between two UNet calls", ("-m", "dressform_bench.step_overhead")),
    "import-time": ("what importing the client costs", ("-m", "dressform_bench.import_time")),
    "dashboards": ("Grafana's panels, drawn from a server under load", ("-m", "dressform_bench.dashboards")),
    "request-trace": ("one request's OpenTelemetry trace, as a picture", ("-m", "dressform_bench.request_trace")),
    "trace": ("a picture of the steps of jobs over time", ("-m", "dressform_bench.trace")),
}
"""Each benchmark: what it shows, and the arguments of Python that run it."""
