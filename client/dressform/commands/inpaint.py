"""``dressform inpaint``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from dressform.client import Client
from dressform.commands import Connect, following, results
from dressform.commands.console import Console
from dressform.commands.flags import add_options, add_server
from dressform.handles import Handle
from dressform.results import Result

EXAMPLES = """
  dressform inpaint photo.jpg mask.png "a red woollen coat" --seed 7 -o coat.png
  dressform inpaint photo.jpg mask.png "a red woollen coat" --num-images 4 --preview
  dressform inpaint - mask.png "a hat" -o - < photo.jpg > hat.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("image", help="picture; - is stdin")
    parser.add_argument("mask", help="mask of the same size; white is repainted")
    parser.add_argument("prompt", help="what to paint")
    following.add_preview(parser)
    results.add_output(parser, "inpaint")
    add_server(parser)
    add_options(parser, "inpaint")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    image, mask = results.picture(options.image), results.picture(options.mask)

    def submit(client: Client, words: Mapping[str, Any]) -> Handle[Result]:
        return client.submit_inpaint(image, mask, options.prompt, **words)

    return following.run(submit, options, console, connect, results.Output.of(options, options.image, "inpaint"))
