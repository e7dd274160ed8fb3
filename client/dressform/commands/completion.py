"""``dressform completion``: a script that makes a shell complete commands and flags, by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from dressform.commands import Connect, whole_parser
from dressform.commands.console import Console
from dressform.commands.exits import DONE

EXAMPLES = """
  eval "$(dressform completion bash)"                                          # in ~/.bashrc
  dressform completion zsh > ~/.zfunc/_dressform                               # with ~/.zfunc in fpath
  dressform completion fish > ~/.config/fish/completions/dressform.fish
"""

_FILES = ("FILE", "FOLDER", "PEM")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Prints the script."""
    import shtab

    parser = whole_parser()
    for action in _file_actions(parser):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return DONE


def _file_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments that name files, of ``parser`` and its subparsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                yield from _file_actions(own)
        elif action.choices is None and (not action.option_strings or action.metavar in _FILES or action.type is Path):
            yield action
