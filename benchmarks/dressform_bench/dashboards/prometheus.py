"""A real Prometheus on loopback, with the configuration and the rules of ``docker/monitoring``."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from dressform_server.ports import chosen_ports

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


class PrometheusError(Exception):
    """Prometheus cannot be run, or does not take a query; the message says why."""


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels, times (unix seconds) and values, those that are no number left out."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]


class Prometheus:
    """Prometheus, scraping ``targets`` (``host:port``) once a second and evaluating the rules as often."""

    def __init__(self, monitoring: Path, targets: Sequence[str], folder: Path) -> None:
        """Start it, its configuration and data in ``folder``.

        Raises:
            PrometheusError: if the program is missing, or ends, or is not ready in a minute.
        """
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusError("the program 'prometheus' is not installed: apt-get install prometheus")
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(local(monitoring, targets)))
        port = chosen_ports("127.0.0.1", {"prometheus": 0})["prometheus"]
        self.url = f"http://127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_ready(folder / "prometheus.log")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def now(self, query: str) -> list[Series]:
        """What ``query`` gives at this moment.

        Raises:
            PrometheusError: if it is no query.
        """
        answer = self._get("query", query=query)
        result: list[Any] = answer["result"]
        if answer["resultType"] == "scalar":
            return [_series({}, [(result[0], result[1])])]
        return [found for one in result if (found := _series(one["metric"], [one["value"]])).values]

    def over(self, query: str, start: float, end: float, step: float) -> list[Series]:
        """What ``query`` gives from ``start`` to ``end`` (unix seconds), each ``step`` seconds.

        Raises:
            PrometheusError: if it is no query.
        """
        answer = self._get("query_range", query=query, start=start, end=end, step=step)
        return [found for one in answer["result"] if (found := _series(one["metric"], one["values"])).values]

    def rules(self) -> list[dict[str, Any]]:
        """Each rule with its last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode({name: str(value) for name, value in parameters.items()})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{parameters}: {error.read().decode()}") from error

    def _wait_ready(self, log: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return
            time.sleep(0.1)
        raise PrometheusError(f"Prometheus did not start: {log.read_text()[-2000:]}")


def local(monitoring: Path, targets: Sequence[str]) -> dict[str, Any]:
    """The configuration in ``monitoring``, for ``targets`` by address, each second, and the rules by absolute path."""
    config: dict[str, Any] = yaml.safe_load((monitoring / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str((monitoring / pattern).resolve()) for pattern in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    del scrape["dns_sd_configs"]
    scrape["static_configs"] = [{"targets": list(targets)}]
    return config


def _series(labels: Mapping[str, str], points: Sequence[tuple[float, str]]) -> Series:
    read = [(moment, float(value)) for moment, value in points]
    kept = [(moment, value) for moment, value in read if math.isfinite(value)]
    return Series(labels, tuple(moment for moment, _ in kept), tuple(value for _, value in kept))
