"""``dressform export``: the command ``dressform-export``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dressform.commands.console import Console
from dressform.commands.exits import FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what completion knows of the command's arguments."""
    parser.add_argument("source", help="a save_pretrained folder, or a hub id; or: random, evaluate")
    parser.add_argument("out", help="the folder to write")


def main(words: Sequence[str]) -> int:
    """Exports."""
    try:
        from dressform_export.__main__ import main

        return main(words)
    except ImportError as error:
        return Console().failed(f"exporting needs more packages ({error}): pip install 'dressform[export]'", FAILED)
