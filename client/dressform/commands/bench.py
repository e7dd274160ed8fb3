"""``dressform bench``: the benchmarks of the package ``dressform_bench``, each a program of its own."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from dressform.commands.children import ended
from dressform.commands.console import Console
from dressform.commands.exits import DONE, FAILED, WRONG
from dressform_bench import BENCHMARKS

_NEEDS = ("locust", "matplotlib")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what completion knows of the command's arguments."""
    parser.add_argument("benchmark", choices=tuple(BENCHMARKS))


def main(words: Sequence[str]) -> int:
    """Runs the benchmark that ``words`` begin with, on the rest of them; without any, lists what there is."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        return Console().failed(f"benchmarks need {', '.join(missing)}: pip install 'dressform[bench]'", FAILED)
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, BENCHMARKS))
        print("usage: dressform bench NAME [ARGUMENTS]   (dressform bench NAME --help says more)\n")
        print("\n".join(f"  {name:<{width}}  {what}" for name, (what, _) in BENCHMARKS.items()))
        return DONE
    if words[0] not in BENCHMARKS:
        return Console().failed(f"there is no benchmark {words[0]!r}: there are {', '.join(BENCHMARKS)}", WRONG)
    return ended([sys.executable, *BENCHMARKS[words[0]][1], *words[1:]])
