"""The ``dressform-export`` command.

``dressform-export SOURCE OUT`` exports a pipeline; ``dressform-export random SIZE FOLDER`` makes one to export.
``dressform-export verify OUT`` proves an export again and measures this machine; ``dressform-export inspect OUT`` shows
what it holds; ``dressform-export evaluate WHAT …`` judges its pictures (`dressform_export.evaluation.command`).
Exit codes: 0 done, 2 one sentence says why not.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from dressform_export.engines import DEFAULT, ENGINES
from dressform_export.errors import ExportError
from dressform_export.progress import Progress

ACCEPT = "go on where an engine's picture is further from torch's than its precision is allowed; it is written down"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for library in ("diffusers", "transformers"):  # set before import: their advice is not for this command's user
        os.environ.setdefault(f"{library.upper()}_VERBOSITY", "error")
        logging.getLogger(library).setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: nothing half-written stays
    try:
        commands = {"random": _random, "verify": _verify, "inspect": _inspect, "evaluate": _evaluate}
        return commands[given[0]](given[1:]) if given[:1] and given[0] in commands else _export(given)
    except ExportError as error:
        print(f"dressform-export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dressform-export: interrupted, nothing was written", file=sys.stderr)
        return 2


def _export(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dressform-export",
        description="Export a diffusers inpainting pipeline to a Triton model repository, each graph verified.",
        epilog="dressform-export random {tiny,sd15} FOLDER makes a random pipeline to try it with; dressform-export "
        "verify, inspect and evaluate are for what was exported (see their --help).",
    )
    parser.add_argument("source", metavar="SOURCE", help="a save_pretrained folder, or a hub id such as owner/name")
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--parser",
        metavar="SEGFORMER",
        help="a Segformer of the ATR labels for automatic masks, a folder or a hub id such as "
        "mattmdjaga/segformer_b2_clothes, or none; default the folder 'parser' in SOURCE, where there is one",
    )
    parser.add_argument(
        "--tryon",
        metavar="catvton=PATH",
        help="put the self-attention of a CatVTON checkpoint (a folder such as mix-48k-1024) over the UNet of SOURCE, "
        "any Stable Diffusion 1.5 inpainting pipeline; default what the dressform.json of SOURCE says",
    )
    parser.add_argument(
        "--no-safety-checker",
        dest="safety_checker",
        action="store_false",
        help="leave the safety checker of SOURCE out: pictures are then served unchecked",
    )
    parser.add_argument(
        "--engine",
        action="extend",
        nargs="+",
        default=[],
        metavar="ENGINE",
        help=f"one or more of {', '.join(ENGINES)} (default {DEFAULT}); the first is served unless another is asked "
        "for (after SOURCE OUT, or end the list with --)",
    )
    parser.add_argument(
        "--calibration",
        metavar="DATA",
        help="what openvino-int8 is calibrated on: wardrobe:SEEDS, drawn people, or a folder of examples with person, "
        "garment, mask and captions.jsonl, as for training (default wardrobe:16)",
    )
    parser.add_argument(
        "--calibration-samples",
        type=int,
        metavar="N",
        help="rows of UNet calls to calibrate on, two of each trajectory (default 16)",
    )
    parser.add_argument("--accept-failed-gates", action="store_true", help=ACCEPT)
    parser.add_argument("--force", action="store_true", help="replace an earlier export at OUT")
    options = parser.parse_args(given)
    from dressform_export.calibration import Calibration
    from dressform_export.exporter import export_pipeline  # torch takes seconds to import: after the arguments

    asked = {"data": options.calibration, "samples": options.calibration_samples}
    calibration = {name: value for name, value in asked.items() if value is not None}
    progress = Progress()
    manifest = export_pipeline(
        options.source,
        options.out,
        revision=options.revision,
        parser=options.parser,
        tryon=options.tryon,
        safety_checker=options.safety_checker,
        engines=options.engine,
        calibration=Calibration(**calibration) if calibration else None,
        accept_failed_gates=options.accept_failed_gates,
        force=options.force,
        progress=progress,
    )
    for warning in (*manifest.warnings, *manifest.accepted):
        progress.note(f"warning: {warning}")
    print(options.out)
    return 0


def _verify(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dressform-export verify",
        description="Hold the graphs and pictures of an export against torch's once more, on this machine; measure "
        "memory and time of a step by rows, and write the max_rows that fit, the manifest and report.html.",
    )
    parser.add_argument("out", metavar="OUT", help="an export")
    parser.add_argument(
        "--engine", action="extend", nargs="+", default=[], metavar="ENGINE", help="default all of the export's"
    )
    parser.add_argument(
        "--rows", type=_positive, nargs="+", default=[], metavar="N", help="rows of the UNet calls (default 1 2 4 8)"
    )
    parser.add_argument("--memory", type=_positive, metavar="MB", help="megabytes to fit into (default what is free)")
    parser.add_argument("--accept-failed-gates", action="store_true", help=ACCEPT)
    options = parser.parse_args(given)
    from dressform_export.capacity import ROWS
    from dressform_export.verify import verify

    progress = Progress()
    manifest = verify(
        options.out,
        engines=options.engine,
        rows=options.rows or ROWS,
        memory=None if options.memory is None else options.memory * 10**6,
        accept_failed_gates=options.accept_failed_gates,
        progress=progress,
    )
    for name, engine in manifest.engines.items():
        if engine.capacity is not None:
            progress.note(f"{name}: {engine.capacity.max_rows} rows fit")
    for sentence in manifest.accepted:
        progress.note(f"warning: {sentence}")
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1, not {text!r}")
    return int(text)


def _inspect(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dressform-export inspect", description="Sizes, operations, engines, sources and hashes of an export."
    )
    parser.add_argument("out", metavar="OUT", help="an export")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(given)
    from rich.console import Console

    from dressform_export.inspection import show, summary
    from dressform_export.manifest import open_manifest

    manifest = open_manifest(Path(options.out))
    if options.json:
        print(json.dumps(summary(manifest), indent=2, ensure_ascii=False))
    else:
        show(manifest, Console())
    return 0


def _random(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dressform-export random", description="Write a random pipeline with the real classes."
    )
    parser.add_argument("size", choices=("tiny", "sd15"), help="tiny: seconds; sd15: Stable Diffusion 1.5's, 4 GB")
    parser.add_argument("folder", metavar="FOLDER", help="the folder to write")
    parser.add_argument("--tryon", choices=("none", "concat"), default="none", help="how a garment enters")
    parser.add_argument("--in-channels", type=int, choices=(9, 4), default=9, help="inpainting or plain UNet")
    parser.add_argument("--prediction-type", choices=("epsilon", "v_prediction"), default="epsilon")
    parser.add_argument("--parser", action="store_true", help="a garment parser too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given)
    from dressform_export.random_pipeline import build_random_pipeline

    with Progress().stage(f"random {options.size} pipeline"):
        folder = build_random_pipeline(
            options.size,
            options.folder,
            tryon=options.tryon,
            in_channels=options.in_channels,
            prediction_type=options.prediction_type,
            parser=options.parser,
            seed=options.seed,
        )
    print(folder)
    return 0


def _evaluate(given: list[str]) -> int:
    from dressform_export.evaluation.command import main as evaluate

    return evaluate(given)


if __name__ == "__main__":
    sys.exit(main())
