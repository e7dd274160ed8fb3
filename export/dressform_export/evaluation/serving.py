"""Asking a Dressform server for many pictures, a bounded number at a time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dressform import Client
from dressform.options import Options
from dressform.results import Result
from dressform_contract import PARAMETERS, ContractError, Value
from dressform_export.evaluation.errors import EvaluationError
from dressform_export.evaluation.sizing import Pixels
from dressform_export.progress import Progress

Job = TypeVar("Job")
Answer = TypeVar("Answer")

READY_SECONDS = 300

OWN = ("output_format", "num_images")
"""Options that an evaluation sets itself."""


@contextmanager
def connected(options: argparse.Namespace, progress: Progress) -> Iterator[Client]:
    """A client of the server at ``options.url``, or without one of a server of ``options.repository`` on
    ``options.engine`` for as long as the block runs.

    Raises:
        ServerError: where the server cannot be started.
        EvaluationError: where neither is given, or the server at ``url`` is not ready.
    """
    if options.url is not None:
        with Client(options.url) as client:
            health = client.health()
            if not health:
                raise EvaluationError(f"no server to evaluate: {health.reason}")
            yield client
        return
    if options.repository is None:
        raise EvaluationError("name what to evaluate: --repository FOLDER, or --url of a running server")
    from dressform_server import Server

    served: dict[str, Any] = {"engine": options.engine, "log": options.out / "triton.log"}
    with Server(options.repository, http_port=0, grpc_port=0, metrics_port=0, **served) as server:
        with progress.stage(f"serving {options.repository}"):
            server.wait_ready(READY_SECONDS)
        with Client(server.grpc_url) as client:
            yield client


@dataclass(frozen=True)
class Asker:
    """Asks ``client``, at most ``in_flight`` requests at a time, with ``settings`` in all of them."""

    client: Client
    settings: Options
    in_flight: int
    progress: Progress

    def all(self, jobs: Sequence[Job], ask: Callable[[Job], Answer], title: str) -> list[Answer]:
        """``ask`` of each job; the answers in the order of the jobs.

        The first error ends it: what has not begun is left out.
        """
        with self.progress.bar(title, len(jobs)) as advance, ThreadPoolExecutor(self.in_flight) as pool:

            def one(job: Job) -> Answer:
                answer = ask(job)
                advance()
                return answer

            futures = [pool.submit(one, job) for job in jobs]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def options(words: Sequence[str]) -> Options:
    """Request options from ``words`` such as ``num_inference_steps=20``.

    Raises:
        EvaluationError: at a word of another form, an unknown option, or a value that the contract does not allow.
    """
    found: dict[str, Value] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or name not in PARAMETERS or name in OWN:
            own = f" other than {' and '.join(OWN)}"
            raise EvaluationError(f"--set takes NAME=VALUE with the name of a request option{own}, not {word!r}")
        parameter = PARAMETERS[name]
        try:
            found[name] = parameter.validated(text if parameter.kind == "choice" else json.loads(text))
        except (ContractError, ValueError) as error:
            raise EvaluationError(f"--set {word}: {name} must be {parameter.allowed}") from error
    return Options(**found)  # type: ignore[typeddict-item]


def picture(answer: Result, original: Pixels) -> Pixels:
    """The picture of ``answer`` uint8 [H, W, 3], which must have the size of its ``original`` [H, W, 3].

    Raises:
        EvaluationError: if it has not.
    """
    pixels = np.asarray(answer.image.convert("RGB"))
    if pixels.shape != original.shape:
        came, sent = (f"{shape[0]} × {shape[1]}" for shape in (pixels.shape, original.shape))
        raise EvaluationError(
            f"the server's picture is {came}, the one sent {sent}: composite=none does not resize back"
        )
    return pixels


def composite(settings: Options) -> str:
    """How the server puts the original back under ``settings``."""
    return str(settings.get("composite") or PARAMETERS["composite"].default)


def story(info: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a result's ``info`` tells: what the server's defaults were."""
    return {name: info[name] for name in ("height", "width", "solver", "num_inference_steps")}
