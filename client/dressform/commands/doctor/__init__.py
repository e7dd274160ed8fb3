"""``dressform doctor``: checks this machine and a server, and says how to mend what is wrong."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from dressform.commands import Connect
from dressform.commands.console import Console
from dressform.commands.doctor import machine, packages, server
from dressform.commands.doctor.findings import Finding, fault
from dressform.commands.exits import DONE, FAILED
from dressform.commands.flags import add_server
from dressform.errors import DressformError, InvalidRequest

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
    add_server(parser, needed=False, retries=False, timeout="seconds for each answer; default 5")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    if options.request and options.server is None:
        raise InvalidRequest("--request needs --server: which one is to make the picture?")
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
    gpu = machine.gpu()
    yield from attempted("Python", lambda: [machine.python()])
    yield from attempted("memory", lambda: [machine.memory()])
    yield from attempted("disk", lambda: [machine.disk(options.folder.resolve())])
    yield from attempted("shared memory", lambda: [machine.shared_memory()])
    yield from attempted("ports", lambda: machine.free_ports(options.host, ports))
    yield gpu
    yield from attempted("Triton", packages.triton)
    yield from attempted("engines", lambda: packages.engines(gpu != machine.NO_GPU))
    yield from attempted("versions", lambda: [packages.versions()])
    if options.server is not None:
        with connect(options) as client:
            seconds = options.timeout or server.QUESTION_SECONDS
            yield from attempted("server", lambda: server.checks(client, options.request, seconds))


def attempted(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a check finds; one that cannot be made is a fault, and the others go on."""
    try:
        yield from check()
    except (OSError, subprocess.SubprocessError, DressformError) as error:
        yield fault(name, f"cannot be checked: {error}", "mend what the sentence names, and run doctor again")


def _print(finding: Finding, console: Console) -> None:
    from rich.text import Text

    line = Text.assemble((f"{finding.state:<6}", _STYLES[finding.state]), f"{finding.check}: {finding.found}")
    if finding.mend:
        line.append(f"\n      mend it: {finding.mend}" if finding.state == "fault" else f"\n      {finding.mend}")
    console.styled().print(line, soft_wrap=True)
