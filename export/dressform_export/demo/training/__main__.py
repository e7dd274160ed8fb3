"""Train the demonstration's networks, or a pipeline of one's own on a folder of try-on pictures.

``python -m dressform_export.demo.training all`` makes the shipped model anew; single networks are trained by name, in
the order vae, parser, classifier, unet. With ``unet --from PIPELINE`` a diffusers inpainting pipeline (a folder or a
hub id) learns to read garments; its autoencoder and text encoder stay as they are. The same command continues a run
that was stopped.

Exit codes: 0 done, 2 one sentence says why not, 3 stopped before the end.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dressform_export.demo.training.errors import TrainingError
from dressform_export.demo.training.networks import FINE_TUNING, NETWORKS, RUNS, SIZE, Job, fine_tune
from dressform_export.demo.training.pipeline import check_target
from dressform_export.errors import ExportError
from dressform_export.evaluation.sizing import height_and_width
from dressform_export.progress import Progress
from dressform_export.source import open_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _options(arguments)
    try:
        return 0 if _train(options, Progress()) else 3
    except ExportError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2


def _train(options: argparse.Namespace, progress: Progress) -> bool:
    """Each network in turn, within the time given; whether all are done."""
    began = time.monotonic()
    out = options.out or options.work / "pipeline"
    check_target(out)
    source = open_source(options.source) if options.source else None
    if source is not None and options.network != "unet":
        raise TrainingError(f"--from is for the unet; {options.network} is not trained from a pipeline")
    given = {name: getattr(options, name) for name in ("data", "steps", "rate", "batch", "seed")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in NETWORKS if options.network == "all" else (options.network,):
        left = None if options.max_seconds is None else options.max_seconds - (time.monotonic() - began)
        job = Job(
            name=name,
            run=replace(FINE_TUNING if source else RUNS[name], **given, max_seconds=left),
            work=options.work,
            out=out,
            size=options.size or (source.size if source else SIZE),
            mirror=options.mirror,
            progress=progress,
        )
        trainer = partial(fine_tune, source=source) if source else NETWORKS[name]
        if not trainer(job):
            return False
    return True


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_export.demo.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", nargs="?", choices=(*NETWORKS, "all"), default="all", help="default: all")
    parser.add_argument("--work", type=Path, default=Path(".demo/training"), help="checkpoints, caches and results")
    parser.add_argument("--data", default="wardrobe:4000", help="wardrobe:SEEDS, or (unet) a folder of examples")
    parser.add_argument("--out", type=Path, help="the pipeline's folder; default: pipeline in the work folder")
    parser.add_argument("--from", dest="source", metavar="PIPELINE", help="fine-tune this pipeline's UNet")
    parser.add_argument("--size", type=height_and_width, metavar="HxW", help="default: 128x96, or the pipeline's")
    parser.add_argument("--mirror", action="store_true", help="learn from each example's mirror image too")
    parser.add_argument("--steps", type=int, help="steps of each network")
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--batch", type=int, help="rows in a batch; of each task for the unet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, help="stop, and keep a checkpoint, after this long")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
