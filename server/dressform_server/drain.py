"""Waiting for jobs in flight before Triton hears of the end.

From SIGTERM on, Triton keeps the requests in flight but refuses the calls that one model makes to another (measured
on 2.51: "Error when running inference: Server not ready"). `denoise` calls `unet` at every step, so its jobs would die
in Triton's own drain. A stage that makes such calls therefore shows its jobs in the gauge ``dressform_jobs``, and the
launcher waits until there are none.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable

GAUGE = "dressform_jobs"
"""Jobs that a stage holds and that need further calls of other models; summed over stages."""

_LOOK_SECONDS = 0.2
_QUIET_LOOKS = 3
_SAMPLE = re.compile(rf"^{GAUGE}(?:\{{[^}}]*\}})? (\S+)$", re.MULTILINE)


def jobs_in(metrics: str) -> float:
    """Jobs in flight according to the text of Triton's metrics; 0 where no stage counts them."""
    return sum(float(value) for value in _SAMPLE.findall(metrics))


def wait_for_jobs(read_metrics: Callable[[], str], alive: Callable[[], bool], timeout: float) -> None:
    """Return when there were no jobs in some looks running, when Triton is not ``alive``, or after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    quiet = 0
    while alive() and time.monotonic() < deadline:
        try:
            metrics = read_metrics()
        except OSError:
            return  # it has gone, or is too ill to say
        if GAUGE not in metrics:
            return
        quiet = quiet + 1 if jobs_in(metrics) == 0 else 0
        if quiet >= _QUIET_LOOKS:
            return
        time.sleep(_LOOK_SECONDS)


def fetched(url: str, timeout: float = 2.0) -> str:
    """The text at ``url``, not through a proxy of the environment: it is this machine's own.

    Raises:
        OSError: if there is no answer, or one with an error status.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as answer:
        return str(answer.read().decode())
