"""``dressform-export evaluate``: the wardrobe's held-out samples, a VITON-HD or DressCode folder, or two folders.

    dressform-export evaluate wardrobe --repository REPOSITORY --out OUT
    dressform-export evaluate viton-hd DATA --repository REPOSITORY --out OUT [--unpaired]
    dressform-export evaluate dresscode DATA --predictions PREDICTIONS --out OUT
    dressform-export evaluate folder TRUTHS --predictions PREDICTIONS --out OUT

Writes ``evaluation.json`` and contact sheets to OUT, and for data sets the predictions and masks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dressform import DressformError
from dressform_export.evaluation import record
from dressform_export.evaluation.errors import EvaluationError
from dressform_export.evaluation.layouts import BODY_PARTS, MASKS
from dressform_export.evaluation.sizing import INTERPOLATIONS, height_and_width
from dressform_export.progress import Progress
from dressform_server import ServerError

REPORT = "evaluation.json"


def main(given: Sequence[str]) -> int:
    """Run the command; 0 when all is written, 130 when interrupted.

    Raises:
        ExportError: with one sentence that says what is wrong.
    """
    options = _parser().parse_args(given)
    try:
        from dressform_export.evaluation import runs  # torch and torchmetrics take many seconds to import

        run = {"wardrobe": runs.wardrobe, "folder": runs.folder}.get(options.layout, runs.data_set)
        options.out.mkdir(parents=True, exist_ok=True)
        report = {"evaluation": options.layout, **record.environment(), **run(options, Progress())}
        record.write(report, options.out / REPORT)
    except ImportError as error:
        raise EvaluationError(f"this needs more packages ({error}): pip install 'dressform[evaluate]'") from error
    except (DressformError, ServerError, OSError) as error:
        raise EvaluationError(str(error)) from error
    except KeyboardInterrupt:
        print("dressform-export evaluate: interrupted, there is no report", file=sys.stderr)
        return 130
    print(options.out / REPORT)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dressform-export evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True, dest="layout")

    wardrobe = commands.add_parser("wardrobe", help="held-out people and garments of the demonstration's wardrobe")
    _add_served(wardrobe)
    wardrobe.add_argument("--seeds", type=int, default=100, help="try-ons (default 100)")
    wardrobe.add_argument("--prompts", type=int, default=100, help="prompt inpaintings (default 100)")
    wardrobe.add_argument("--first", type=int, help="first seed (default: the first that is never trained on)")
    wardrobe.add_argument("--mask", choices=("automatic", "given"), default="automatic", help="given: the true one")

    for name, text in (("viton-hd", "a folder in VITON-HD's layout"), ("dresscode", "a folder in DressCode's layout")):
        data = commands.add_parser(name, help=text)
        data.add_argument("data", type=Path, metavar="DATA")
        _add_served(data)
        _add_compared(data)
        data.add_argument(
            "--predictions", type=Path, help="pictures that exist, by the persons' names: nothing is served"
        )
        data.add_argument("--mask", choices=MASKS, default="given", help="default: the data set's own")
        data.add_argument("--limit", type=_positive, help="only the first LIMIT cases")
        data.add_argument(
            "--seed", type=int, default=0, help="of the first case; each has one more than the one before"
        )
        if name == "dresscode":
            data.add_argument("--category", action="append", choices=tuple(BODY_PARTS), help="default: all three")

    folder = commands.add_parser("folder", help="predictions against truths of the same names")
    folder.add_argument("truths", type=Path, metavar="TRUTHS")
    folder.add_argument("--predictions", type=Path, required=True)
    folder.add_argument("--masks", type=Path, help="masks of the same names, white where repainted")
    _add_out(folder)
    _add_compared(folder)
    return parser


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--rows", type=_positive, default=16, help="cases on a contact sheet: the first (default 16)")


def _add_served(parser: argparse.ArgumentParser) -> None:
    _add_out(parser)
    parser.add_argument("--repository", type=Path, help="the export: it is served, unless --url names its server")
    parser.add_argument(
        "--engine", metavar="NAME", help="of the export's engines the one to serve (default: its first)"
    )
    parser.add_argument("--url", help="a running server, grpc:// or http://")
    parser.add_argument("--in-flight", type=_positive, default=8, help="requests at a time (default 8)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a request option, as num_inference_steps=50"
    )


def _add_compared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--unpaired", action="store_true", help="other garments than the truths': FID and KID alone")
    parser.add_argument(
        "--size", type=height_and_width, metavar="HxW", help="compare at this size (default: the pictures' own)"
    )
    parser.add_argument("--interpolation", choices=tuple(INTERPOLATIONS), default="lanczos")
    parser.add_argument("--inception", type=Path, help="TorchScript Inception for FID and KID, inception-2015-12-05.pt")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer above 0")
    return int(text)
