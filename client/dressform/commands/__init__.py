"""The commands of ``dressform``: a module each, imported when it is called.

A module has ``EXAMPLES`` (commands that work), ``add_arguments(parser)`` and ``run(options, console, connect)``, which
returns the exit code; or, where another package has the arguments, ``main(words)``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn

from dressform.client import Client
from dressform.commands import exits

Connect = Callable[[argparse.Namespace], Client]
"""Makes the client that the flags ask for."""

_EXAMPLES = """examples:
  dressform serve repository/
  dressform tryon person.jpg shirt.jpg --preview
  dressform inpaint photo.jpg mask.png "a red woollen coat" --seed 7 -o coat.png
  dressform batch pairs.csv -o results/
  dressform doctor --server http://127.0.0.1:8000

dressform COMMAND --help says more."""


@dataclass(frozen=True)
class Command:
    """A command: its module, a line about it, what it needs. ``passes_on``: another package reads its arguments."""

    module: str
    help: str
    usage: str = ""
    passes_on: bool = False

    def load(self) -> Any:
        """The module."""
        return import_module(f"dressform.commands.{self.module}")


COMMANDS: dict[str, Command] = {
    "tryon": Command("tryon", "dress a person in garments", "person garment [garment ...]"),
    "inpaint": Command("inpaint", "repaint a picture where a mask is white", "image mask prompt"),
    "mask": Command("mask", "show what a garment may cover on a person", "person"),
    "batch": Command("batch", "a CSV or folder of pairs to a folder of results; resumable", "PAIRS -o RESULTS"),
    "health": Command("health", "is the server ready, and for what?"),
    "models": Command("models", "the models in the server's repository"),
    "stats": Command("stats", "requests and times of each model"),
    "doctor": Command("doctor", "find faults of this machine or a server, and how to mend them"),
    "serve": Command("serve", "serve an exported model repository (extra 'serve')", passes_on=True),
    "export": Command("export", "make a model repository of a pipeline (extra 'export')", passes_on=True),
    "app": Command("app", "the web page (extra 'app')"),
    "bench": Command("bench", "benchmarks (extra 'bench')", passes_on=True),
    "completion": Command("completion", "a shell's completion", "{bash,zsh,fish}"),
}


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = argparse.ArgumentParser(prog=f"dressform {name}", **_settings(name))
    COMMANDS[name].load().add_arguments(parser)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """The parser of all commands, for completion. It imports the modules of all."""
    parser, commands = _root()
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.help, add_help=not command.passes_on, **_settings(name))
        command.load().add_arguments(own)
    return parser


def refuse(words: Sequence[str]) -> NoReturn:
    """Ends the program for ``words`` that name no command: by its help, its version, or what is wrong with them."""
    parser, commands = _root()
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    if words and not words[0].startswith("-"):
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        parser.error(f"there is no command {words[0]!r}: {hint}")
    if words:
        parser.parse_args(words)
    parser.print_help(sys.stderr)
    sys.exit(exits.WRONG)


def _root() -> tuple[argparse.ArgumentParser, Any]:
    parser = argparse.ArgumentParser(
        prog="dressform",
        description="Virtual try-on and inpainting on a Triton server.",
        epilog=f"{_EXAMPLES}\n\n{exits.table()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dressform {version('dressform')}")
    return parser, parser.add_subparsers(metavar="COMMAND", title="commands")


def _settings(name: str) -> dict[str, Any]:
    """How the parser of a command is made."""
    command = COMMANDS[name]
    if command.passes_on:
        return {}
    examples = command.load().EXAMPLES.strip("\n")
    return {
        "usage": f"dressform {name} {command.usage}{' ' if command.usage else ''}[options]",
        "description": f"{command.help[0].upper()}{command.help[1:]}{'' if command.help.endswith('?') else '.'}",
        "epilog": f"examples:\n{examples}\n\nExit codes: dressform --help",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
