"""``dressform batch``: a CSV or folder of pairs to a folder of results."""

from __future__ import annotations

import argparse
from pathlib import Path

from dressform.commands import Connect
from dressform.commands.batch.run import checked_pairs, run_batch
from dressform.commands.console import Console
from dressform.commands.exits import DONE
from dressform.commands.flags import add_options, add_server

EXAMPLES = """
  dressform batch pairs.csv -o results/
  dressform batch photos/ -o results/ --category upper --num-inference-steps 20     # photos/person, photos/garment
  dressform batch VITON-HD/test_pairs.txt -o results/ --concurrency 16 --patience 1800

pairs.csv has a line of columns: person, garment (several: a.jpg|b.jpg), or image, mask, prompt; and whichever of mask,
prompt, negative_prompt, name (of the result) and the options below. Paths start from the CSV's folder:
  person,garment,category,seed
  anna.jpg,shirt.jpg,upper,7

RESULTS/manifest.jsonl gets a line for each pair: its pictures, seeds, options, request id and seconds, or its error.
The same command again makes what is missing or failed, and nothing twice."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("source", metavar="PAIRS", type=Path, help="a CSV, a .txt of pairs, or a folder of folders")
    parser.add_argument("-o", "--output", metavar="RESULTS", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--concurrency", metavar="N", type=int, default=8, help="requests under way at once; 8")
    parser.add_argument(
        "--patience",
        metavar="S",
        type=float,
        default=600.0,
        help="seconds to wait for a server that is away or full; 600",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="write to RESULTS although it holds other results; those of the same names are replaced",
    )
    parser.add_argument("--ignore", metavar="COLUMN", action="append", default=[], help="a column that is not for us")
    parser.add_argument("--dry-run", action="store_true", help="check the pairs, send nothing")
    parser.add_argument("--prompt", metavar="TEXT", help="of all pairs that have none of their own")
    add_server(parser, retries=False, timeout="seconds for each picture; default as long as it takes")
    add_options(parser, "tryon")


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:
    """Runs the command."""
    pairs = checked_pairs(options)
    if options.dry_run:
        console.say(f"{len(pairs)} pairs, all in order: {pairs[0].task}")
        console.answer({"pairs": len(pairs), "task": pairs[0].task})
        return DONE
    return run_batch(pairs, options, console, connect)
