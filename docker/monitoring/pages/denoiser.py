"""The heart: UNet calls and jobs."""

from __future__ import annotations

from pages.panel import Dashboard, Panel, Row
from pages.query import RATE, SERVER, mean, quantiles, rate

DENOISER = Dashboard(
    "denoiser",
    "Dressform: denoiser",
    "The heart: which UNet calls it makes, how long they take, and who waits.",
    {"instance": "dressform_work_seconds"},
    (
        Row(
            "UNet calls",
            (
                Panel(
                    "Rows of a UNet call",
                    "How many calls had how many rows. High up: steps of many requests shared.",
                    "short",
                    {"{{le}}": f"sum by (le) (increase(dressform_unet_rows_bucket{{{SERVER}}}{RATE}))"},
                    kind="heatmap",
                    width=12,
                ),
                Panel(
                    "Time of a step",
                    "Of one UNet call, and what is done around it.",
                    "s",
                    quantiles("dressform_step_seconds") | {"mean": mean("dressform_step_seconds")},
                    width=12,
                ),
                Panel(
                    "Time of a step at equal rows",
                    "Slower at equal rows is the machine; more rows is the load.",
                    "s",
                    {"up to {{rows}} rows": mean("dressform_step_seconds", "rows")},
                ),
                Panel(
                    "Against its own past",
                    "Mean of the last 5 minutes over the past day's median, at equal rows. Above 1.5 a ticket.",
                    "short",
                    {
                        "{{instance}}, {{rows}} rows": f"dressform:step_seconds:mean5m{{{SERVER}}}"
                        f" / dressform:step_seconds:median1d{{{SERVER}}}"
                    },
                    limit=1.5,
                ),
                Panel(
                    "Rows",
                    "Mean rows of a call, and rows a second: the throughput.",
                    "short",
                    {
                        "rows a call": mean("dressform_unet_rows"),
                        "rows a second": rate("dressform_unet_rows_sum"),
                    },
                ),
            ),
        ),
        Row(
            "Jobs",
            (
                Panel(
                    "Jobs by state",
                    "waiting: no step yet.",
                    "short",
                    {"{{state}}": f"sum by (state) (dressform_jobs{{{SERVER}}})"},
                    stacked=True,
                ),
                Panel(
                    "Admitted and ended",
                    "Jobs that reached the denoiser, and how they left it.",
                    "ops",
                    {
                        "admitted": rate("dressform_jobs_admitted_total"),
                        "{{outcome}} {{reason}}": rate("dressform_jobs_ended_total", "outcome, reason"),
                    },
                ),
                Panel(
                    "Steps",
                    "Each job's steps counted, and the UNet calls they were made in.",
                    "ops",
                    {"steps": rate("dressform_steps_total"), "UNet calls": rate("dressform_step_seconds_count")},
                ),
                Panel(
                    "Wait for the first step",
                    "From arrival: reading, encoding, and waiting for a place.",
                    "s",
                    quantiles("dressform_time_to_first_step_seconds"),
                ),
                Panel(
                    "From arrival to the last step",
                    "What is left of a request is decoding and writing the picture.",
                    "s",
                    quantiles("dressform_job_seconds"),
                    limit=20,
                ),
                Panel(
                    "Rows saved by guidance intervals",
                    "Unconditional rows that were not run, as a share of all that would have been.",
                    "percentunit",
                    {
                        "saved": f"{rate('dressform_guidance_rows_saved_total')} / "
                        f"({rate('dressform_guidance_rows_saved_total')} + {rate('dressform_unet_rows_sum')})"
                    },
                ),
            ),
        ),
    ),
)
