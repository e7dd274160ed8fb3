"""``dressform doctor``: checks this machine and a server, and says how to mend what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dressform.commands import Connect
from dressform.commands.console import Console
from dressform.commands.doctor import machine, packages, server
from dressform.commands.doctor.findings import Finding
from dressform.commands.exits import DONE, FAILED
from dressform.commands.flags import add_server

EXAMPLES = """
  dressform doctor
  dressform doctor --server http://127.0.0.1:8000 --request
  dressform doctor --json | jq -r '.findings[] | select(.state == "fault").mend'
"""

_STYLES = {"ok": "green", "note": "yellow", "fault": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--request", action="store_true", help="have the server make a picture, too (needs --server)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where exports are to lie; default here")
    parser.add_argument("--host", default="127.0.0.1", help="the address that is to be served; 127.0.0.1")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(f"--{name}-port", type=int, default=port, metavar="N", help=f"to be served; {port}")
    add_server(parser, needed=False)


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    if options.request and options.server is None:
        console.warn("--request needs --server: no picture is tried")
    findings = []
    for finding in _findings(options, connect):
        findings.append(finding)
        if not console.json:
            _print(finding, console)
    faults = sum(finding.state == "fault" for finding in findings)
    console.say(f"{faults or 'no'} fault{'' if faults == 1 else 's'}")
    console.answer({"faults": faults, "findings": [asdict(finding) for finding in findings]})
    return FAILED if faults else DONE


def _findings(options: argparse.Namespace, connect: Connect) -> Iterator[Finding]:
    ports = {"http": options.http_port, "grpc": options.grpc_port, "metrics": options.metrics_port}
    yield machine.python()
    yield machine.memory()
    yield machine.disk(options.folder.resolve())
    yield machine.shared_memory()
    yield from machine.free_ports(options.host, ports)
    gpu = machine.gpu()
    yield gpu
    yield from packages.triton()
    yield from packages.engines(gpu != machine.NO_GPU)
    yield packages.versions()
    if options.server is not None:
        with connect(options) as client:
            yield from server.checks(client, options.request)


def _print(finding: Finding, console: Console) -> None:
    from rich.text import Text

    line = Text.assemble((f"{finding.state:<6}", _STYLES[finding.state]), f"{finding.check}: {finding.found}")
    if finding.mend:
        line.append(f"\n      mend it: {finding.mend}" if finding.state == "fault" else f"\n      {finding.mend}")
    console.styled().print(line, soft_wrap=True)
