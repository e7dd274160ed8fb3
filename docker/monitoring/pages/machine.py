"""Stages, Triton's models, and what they run on."""

from __future__ import annotations

from pages.panel import Dashboard, Panel, Row
from pages.query import GRAPHS, INNER, SERVER, mean, per_model, rate

MACHINE = Dashboard(
    "machine",
    "Dressform: stages and machine",
    "Where time goes, model by model and stage by stage, and what the machine has left.",
    {"instance": "dressform_work_seconds"},
    (
        Row(
            "Stages of a request",
            (
                Panel(
                    "Time of a request, by stage",
                    "Mean of each stage; the sum is a mean request.",
                    "s",
                    {"{{stage}}": mean("dressform_stage_seconds", "stage")},
                    stacked=True,
                ),
                Panel(
                    "p95 of each stage",
                    "wait: for a place in the denoiser.",
                    "s",
                    {"{{stage}}": f"histogram_quantile(0.95, {rate('dressform_stage_seconds_bucket', 'le, stage')})"},
                ),
                Panel(
                    "Age of the stages' heartbeats",
                    "A stage that was not heard of for two minutes calls.",
                    "s",
                    {
                        "{{instance}} {{stage}}": f"time() - dressform_stage_beat_timestamp_seconds{{{SERVER}}}",
                    },
                    limit=120,
                ),
            ),
        ),
        Row(
            "Triton's models",
            (
                Panel(
                    "Time of a call",
                    "Of one batch in each graph.",
                    "s",
                    {
                        "{{model}}": per_model(
                            "nv_inference_compute_infer_duration_us", "nv_inference_exec_count", GRAPHS
                        )
                    },
                ),
                Panel(
                    "Busy",
                    "Share of the time that each graph computes; 1 is all of the time.",
                    "percentunit",
                    {"{{model}}": rate("nv_inference_compute_infer_duration_us", "model", GRAPHS) + " / 1e6"},
                    stacked=True,
                ),
                Panel(
                    "Rows of a call",
                    "Batching of each graph.",
                    "short",
                    {
                        "{{model}}": f"{rate('nv_inference_count', 'model', GRAPHS)}"
                        f" / ({rate('nv_inference_exec_count', 'model', GRAPHS)} > 0)"
                    },
                ),
                Panel(
                    "Time in Triton's queues",
                    "Of a request at each model, before it is executed; at denoise, of each round.",
                    "s",
                    {"{{model}}": per_model("nv_inference_queue_duration_us", "nv_inference_request_success", INNER)},
                ),
                Panel(
                    "Waiting in Triton's queues",
                    "Requests at each model that wait to be executed.",
                    "short",
                    {"{{model}}": f"sum by (model) (nv_inference_pending_request_count{{{INNER}}})"},
                ),
                Panel(
                    "Failures of graphs",
                    "Calls that failed; the log says why.",
                    "reqps",
                    {"{{model}}": rate("nv_inference_request_failure", "model", GRAPHS)},
                ),
            ),
        ),
        Row(
            "Machine",
            (
                Panel(
                    "CPU",
                    "Of the whole machine that the server runs on.",
                    "percentunit",
                    {"{{instance}}": f"nv_cpu_utilization{{{SERVER}}}"},
                ),
                Panel(
                    "Memory",
                    "Of the whole machine that the server runs on.",
                    "bytes",
                    {
                        "{{instance}} used": f"nv_cpu_memory_used_bytes{{{SERVER}}}",
                        "{{instance}} total": f"nv_cpu_memory_total_bytes{{{SERVER}}}",
                    },
                ),
                Panel(
                    "Up for",
                    "Since the server started; a fall is a restart.",
                    "s",
                    {"{{instance}}": f"time() - dressform_start_time_seconds{{{SERVER}}}"},
                ),
            ),
        ),
        Row(
            "GPU",
            (
                Panel(
                    "GPU",
                    "Share of the time that a kernel ran.",
                    "percentunit",
                    {"{{instance}} {{gpu_uuid}}": f"nv_gpu_utilization{{{SERVER}}}"},
                ),
                Panel(
                    "GPU memory",
                    "The UNet's activations grow with max_rows.",
                    "bytes",
                    {
                        "{{instance}} used": f"nv_gpu_memory_used_bytes{{{SERVER}}}",
                        "{{instance}} total": f"nv_gpu_memory_total_bytes{{{SERVER}}}",
                    },
                ),
                Panel(
                    "GPU power",
                    "At its limit the card slows down.",
                    "watt",
                    {
                        "{{instance}}": f"nv_gpu_power_usage{{{SERVER}}}",
                        "{{instance}} limit": f"nv_gpu_power_limit{{{SERVER}}}",
                    },
                ),
            ),
            collapsed=True,
        ),
    ),
)
