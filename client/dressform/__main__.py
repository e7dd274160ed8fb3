"""The command ``dressform``: finds the command that is asked for, runs it, and ends in a sentence where it fails."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from dressform.client import Client
from dressform.commands import COMMANDS, exits, parser_of, refuse
from dressform.commands.console import Console
from dressform.errors import DressformError


def main(arguments: Sequence[str] | None = None, client: Client | None = None) -> int:
    """Runs the command and returns its exit code. ``client`` is used instead of one for ``--server``."""
    if arguments is None:  # SIGTERM, or a terminal that is closed, ends the program as Ctrl-C does: jobs are cancelled
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, signal.default_int_handler)
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(words[0]) if words else None
    if command is None:
        refuse(words)
    console = Console()
    try:
        module = command.load()
        if command.passes_on:
            return int(module.main(words[1:]))
        options = parser_of(words[0]).parse_args(words[1:])
        console.json = getattr(options, "json", False)
        return int(module.run(options, console, _connect if client is None else lambda _: client))
    except DressformError as error:
        return console.failed(error)
    except BrokenPipeError:  # who read stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except OSError as error:
        return console.failed(f"{error.filename}: {error.strerror}" if error.filename else str(error), exits.FAILED)
    except KeyboardInterrupt:
        return console.failed("interrupted", exits.INTERRUPTED)


def _connect(options: argparse.Namespace) -> Client:
    from dressform.commands.flags import connected

    return connected(options)


if __name__ == "__main__":
    sys.exit(main())
