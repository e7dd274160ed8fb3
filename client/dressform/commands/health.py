"""``dressform health``."""

from __future__ import annotations

import argparse
import time

from dressform.commands import Connect
from dressform.commands.console import Console
from dressform.commands.exits import DONE
from dressform.commands.flags import add_server
from dressform.errors import ServerUnavailable

EXAMPLES = """
  dressform health
  dressform health --server http://127.0.0.1:8000 --wait 120 && dressform batch pairs.csv -o results/
"""

_QUESTION_SECONDS = 5.0
_PAUSE_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--wait", metavar="S", type=float, default=0.0, help="wait up to S seconds for it to be ready")
    add_server(parser, retries=False, timeout="seconds for each answer; default 5")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    end = time.monotonic() + options.wait
    with connect(options) as client:
        while True:
            health = client.health(options.timeout or _QUESTION_SECONDS)
            if health or time.monotonic() >= end:
                break
            time.sleep(_PAUSE_SECONDS)
    if not health:
        raise health.error or ServerUnavailable(health.reason)
    console.say(f"{client.url} is ready: {', '.join(health.tasks)}  ({health.server})")
    console.answer({"url": client.url, "ready": True, "tasks": health.tasks, "server": health.server})
    return DONE
