"""The run of a batch: what is not done is sent, a bounded number at once, and each result is written as it comes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from dressform.client import Client
from dressform.commands import Connect
from dressform.commands.batch.manifest import Manifest
from dressform.commands.batch.pairs import Pair, checked
from dressform.commands.batch.patience import Outage, Patience
from dressform.commands.batch.progress import Progress
from dressform.commands.batch.rows import read
from dressform.commands.console import Console, described
from dressform.commands.exits import DONE, FAILED, INTERRUPTED, UNAVAILABLE
from dressform.commands.flags import keywords
from dressform.errors import DressformError, InvalidRequest, ServerUnavailable
from dressform.many import Finished
from dressform.results import Result

_QUESTION_SECONDS = 10.0
_PAUSE_SECONDS = 0.5


def checked_pairs(options: argparse.Namespace) -> list[Pair]:
    """The pairs that the command line asks for.

    Raises:
        InvalidRequest: naming every line that is wrong.
    """
    common = {"service_class": "batch", **keywords(options)}
    texts = {"prompt": options.prompt, "negative_prompt": common.pop("negative_prompt", None)}
    given = {name: text for name, text in texts.items() if text is not None}
    return checked(read(options.source), given, common, options.ignore)


def run_batch(pairs: Sequence[Pair], options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Makes what is not done of ``pairs``; the exit code."""
    with Manifest.locked(options.output) as manifest:
        todo = manifest.begin(pairs, options.force)
        outage = Outage(lambda error: console.note(f"dressform: {error.sentence} Waiting for the server."))
        progress = Progress(console, len(pairs), len(pairs) - len(todo), outage)
        code, reason = DONE, ""
        if todo:
            with connect(options) as client:
                _require(client, todo[0].task)
                try:
                    with progress.shown():
                        _make(todo, manifest, client, options, progress, outage)
                    code = FAILED if progress.failed else DONE
                except ServerUnavailable as error:
                    code, reason = UNAVAILABLE, str(error)
                except KeyboardInterrupt:
                    code, reason = INTERRUPTED, "interrupted"
        _summarize(manifest, progress, console, code, reason)
    return code


def _require(client: Client, task: str) -> None:
    """Raises at once where nobody serves ``task``."""
    health = client.health(_QUESTION_SECONDS)
    if not health:
        raise health.error or ServerUnavailable(health.reason)
    if task not in health.tasks:
        raise InvalidRequest(f"{client.url} serves {', '.join(health.tasks)}, but not {task}")


def _make(
    todo: Sequence[Pair],
    manifest: Manifest,
    client: Client,
    options: argparse.Namespace,
    progress: Progress,
    outage: Outage,
) -> None:
    """Makes ``todo``.

    Raises:
        ServerUnavailable: when patience is at its end.
    """
    retries = Patience(seconds=options.patience, outage=outage)
    while todo:
        lost = list(_passed(todo, manifest, client, options.concurrency, retries, progress))
        if lost and outage.seconds >= options.patience:
            raise lost[-1][1]
        todo = [pair for pair, _ in lost]
        time.sleep(_PAUSE_SECONDS if todo else 0)


def _passed(
    todo: Sequence[Pair], manifest: Manifest, client: Client, concurrency: int, retries: Patience, progress: Progress
) -> Iterator[tuple[Pair, ServerUnavailable]]:
    """Makes ``todo`` as far as there is a server; gives those whose own time ran out while there was none."""
    began: list[float] = []

    def inputs() -> Iterator[dict[str, Any]]:
        for pair in todo:
            began.append(time.monotonic())
            yield pair.keywords

    many = client.tryon_many if todo[0].task == "tryon" else client.inpaint_many
    with closing(many(inputs(), concurrency=concurrency, progress=False, retries=retries)) as finished:
        for each in finished:
            if isinstance(each.error, ServerUnavailable) and retries.outage.seconds < retries.seconds:
                yield todo[each.index], each.error
                continue
            seconds = round(time.monotonic() - began[each.index], 3)
            _record(todo[each.index], each, seconds, manifest, progress)
            if isinstance(each.error, ServerUnavailable):
                raise each.error
            retries.outage.over()


def _record(pair: Pair, finished: Finished[Result], seconds: float, manifest: Manifest, progress: Progress) -> None:
    result, error = finished.result, finished.error
    if result is not None:
        line: dict[str, Any] = {"seeds": result.seeds, "request_id": result.request_id, "seconds": seconds}
        manifest.done(pair, result.encoded, line | {"warnings": result.warnings})
        progress.made_one(pair, line)
        return
    assert error is not None
    manifest.failed(pair, {"error": described(error), "seconds": seconds})
    progress.failed_one(pair, error)
    if not isinstance(error, DressformError):
        raise error


def _summarize(manifest: Manifest, progress: Progress, console: Console, code: int, reason: str) -> None:
    again = "" if code == DONE else "; the same command again makes the rest"
    earlier = f" ({progress.before} of them before)" if progress.before else ""
    parts = [f"{progress.before + progress.made} of {progress.total} done{earlier}"]
    parts += [f"{progress.failed} failed"] if progress.failed else []
    parts += [f"{progress.seconds:.1f} s, {progress.rate * 60:.1f} pairs/min"] if progress.made else []
    console.note(f"{f'dressform: {reason}' if reason else 'dressform:'} {', '.join(parts)}: {manifest.path}{again}")
    document = {
        "manifest": str(manifest.path),
        "pairs": progress.total,
        "done": progress.before + progress.made,
        "done_before": progress.before,
        "failed": progress.failed,
        "left": progress.left,
        "seconds": round(progress.seconds, 3),
        "exit_code": code,
    }
    console.answer(document | ({"error": reason} if reason else {}))
