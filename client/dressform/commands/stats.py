"""``dressform stats``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from dressform.commands import Connect
from dressform.commands.console import Console
from dressform.commands.exits import DONE
from dressform.commands.flags import add_server
from dressform.status import ModelStatistics

EXAMPLES = """
  dressform stats
  dressform stats --json | jq '.unet.executions'
"""

_COLUMNS = ("model", "requests", "failed", "batches", "s/request", "s queued", "s computing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_server(parser, retries=False, timeout="seconds for each answer; default 5")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    with connect(options) as client:
        statistics = client.stats(options.timeout or 5.0)
    console.table(_COLUMNS, [_row(each) for each in statistics.values() if each.succeeded or each.failed])
    console.answer({name: asdict(each) for name, each in statistics.items()})
    return DONE


def _row(model: ModelStatistics) -> tuple[str, ...]:
    counts = (model.succeeded, model.failed, model.executions)
    per_request = model.request_seconds / model.succeeded if model.succeeded else 0.0
    times = (f"{seconds:.3f}" for seconds in (per_request, model.queue_seconds, model.compute_seconds))
    return (model.name, *map(str, counts), *times)
