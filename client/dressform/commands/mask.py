"""``dressform mask``."""

from __future__ import annotations

import argparse
import time

from dressform.commands import Connect, results
from dressform.commands.console import Console
from dressform.commands.exits import DONE
from dressform.commands.flags import add_options, add_server

EXAMPLES = """
  dressform mask person.jpg
  dressform mask person.jpg --category lower --mask-grow 8 -o mask.png --preview
  dressform mask person.jpg -o - | dressform tryon person.jpg shirt.jpg --mask -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("person", help="photo of a person; - is stdin")
    parser.add_argument("--preview", action="store_true", help="show the mask in the terminal")
    results.add_output(parser, "mask")
    add_server(parser)
    add_options(parser, "mask")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    output = results.Output.of(options, options.person, "mask")
    began = time.monotonic()
    with connect(options) as client:
        result = client.mask(results.picture(options.person), **results.keywords(options))
    seconds = time.monotonic() - began
    if options.preview:
        console.show([result.mask_used])
    paths = output.write([result.encoded])
    for path in paths:
        console.say(f"{path}  {result.category}")
    document = {
        "outputs": [str(path) for path in paths],
        "category": result.category,
        "request_id": result.request_id,
        "seconds": round(seconds, 3),
        "info": result.info,
    }
    console.answer(document)
    return DONE
