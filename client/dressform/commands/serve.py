"""``dressform serve``: the server package's own command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dressform.commands.console import Console
from dressform.commands.exits import FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments, where the server package can be imported."""
    try:
        from dressform_server.launcher import add_arguments
    except ImportError:
        return
    add_arguments(parser)


def main(words: Sequence[str]) -> int:
    """Serves until it is told to stop."""
    try:
        from dressform_server.launcher import main
    except ImportError as error:
        return Console().failed(f"serving needs more packages ({error}): pip install 'dressform[serve]'", FAILED)
    return main(words)
