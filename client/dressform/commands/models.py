"""``dressform models``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from dressform.commands import Connect
from dressform.commands.console import Console
from dressform.commands.exits import DONE
from dressform.commands.flags import add_server

EXAMPLES = """
  dressform models
  dressform models --json | jq -r '.[] | select(.ready | not).name'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_server(parser, retries=False, timeout="seconds for each answer; default 5")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    with connect(options) as client:
        models = client.models(options.timeout or 5.0)
    rows = [(model.name, model.version, "ready" if model.ready else "not ready", model.reason) for model in models]
    console.table(("model", "version", "state", "reason"), rows)
    console.answer([asdict(model) for model in models])
    return DONE
