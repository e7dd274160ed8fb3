"""``dressform tryon``."""

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
  dressform tryon person.jpg shirt.jpg --preview
  dressform tryon person.jpg shirt.jpg trousers.jpg --num-inference-steps 20 --seed 7 -o outfit.png
  dressform tryon person.jpg shirt.jpg --mask mask.png --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("person", help="photo of a person; - is stdin")
    parser.add_argument("garment", nargs="+", help="photo of a garment; several are put on one after the other")
    parser.add_argument(
        "--mask",
        metavar="FILE",
        action="append",
        help="what to repaint (white): once for all, or once for each garment; default what the garment may cover",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="words that help, where the model takes any")
    following.add_preview(parser)
    results.add_output(parser, "tryon")
    add_server(parser)
    add_options(parser, "tryon")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    person, *garments = (results.picture(name) for name in (options.person, *options.garment))
    masks = [results.picture(mask) for mask in options.mask or ()]
    mask = masks[0] if len(masks) == 1 else masks or None

    def submit(client: Client, words: Mapping[str, Any]) -> Handle[Result]:
        return client.submit_tryon(person, garments, mask=mask, prompt=options.prompt, **words)

    return following.run(submit, options, console, connect, results.Output.of(options, options.person, "tryon"))
