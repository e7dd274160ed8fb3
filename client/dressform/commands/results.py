"""Results of single requests: written to files (or stdout), printed, or told as JSON."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dressform.commands import flags
from dressform.commands.console import Console
from dressform.errors import InvalidRequest
from dressform.results import Result
from dressform_contract import Task

STDIN = STDOUT = "-"
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".npy": "npy"}
"""``output_format`` by a file's ending."""

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "npy": ".npy", "data_url": ".txt"}
"""A file's ending by ``output_format``."""


def add_output(parser: argparse.ArgumentParser, task: Task) -> None:
    """The flags that say where a result goes and under which id it is made."""
    parser.add_argument("--request-id", metavar="ID", help="default: a new UUID")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=_path,
        help=f"where to write ({', '.join(FORMATS)}); several pictures get -1, -2, …; - is stdout; "
        f"default NAME-{task}.png",
    )


def picture(given: str) -> str | BinaryIO:
    """A picture named on the command line: a path, or ``-`` for stdin (which gives one picture only)."""
    return sys.stdin.buffer if given == STDIN else given


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a request; the ending of ``--output`` says the format if nothing else does."""
    ending = {"output_format": FORMATS[options.output.suffix.lower()]} if isinstance(options.output, Path) else {}
    return ending | flags.keywords(options)


@dataclass(frozen=True)
class Output:
    """Where the pictures of a request go. ``path`` None: to stdout."""

    path: Path | None

    @classmethod
    def of(cls, options: argparse.Namespace, source: str, task: Task) -> Output:
        """As ``--output`` says, else by the source's name and the task.

        Raises:
            InvalidRequest: if stdout is to carry both the picture and something else.
        """
        if options.output == STDOUT:
            if options.json or (getattr(options, "num_images", None) or 1) > 1:
                raise InvalidRequest("--output - writes one picture to stdout: leave --json and --num-images out")
            return cls(None)
        if options.output is not None:
            return cls(options.output)
        stem = "stdin" if source == STDIN else Path(source).stem
        return cls(Path(f"{stem}-{task}{ENDINGS[options.output_format or 'png']}"))

    def write(self, encoded: list[bytes]) -> list[Path]:
        """Writes pictures as the server encoded them; the paths."""
        if self.path is None:
            sys.stdout.buffer.write(encoded[0])
            sys.stdout.buffer.flush()
            return []
        paths = numbered(self.path, len(encoded))
        for path, data in zip(paths, encoded, strict=True):
            path.write_bytes(data)
        return paths


def numbered(path: Path, count: int) -> list[Path]:
    """The paths of ``count`` pictures."""
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{i + 1}") for i in range(count)]


def report(result: Result, output: Output, console: Console, seconds: float) -> None:
    """Writes the pictures of ``result``, and tells of them."""
    paths = output.write(result.encoded)
    for path, seed in zip(paths, result.seeds):
        console.say(f"{path}  seed {seed}")
    for warning in result.warnings:
        console.warn(warning)
    document = {
        "outputs": [str(path) for path in paths],
        "seeds": result.seeds,
        "request_id": result.request_id,
        "seconds": round(seconds, 3),
        "warnings": result.warnings,
        "info": result.info,
    }
    console.answer(document)


def _path(text: str) -> Path | str:
    if text == STDOUT:
        return text
    path = Path(text)
    if path.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r} must end in one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path
