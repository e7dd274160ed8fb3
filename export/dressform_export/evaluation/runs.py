"""The evaluations behind the command: each gives its part of the report, and writes its contact sheets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dressform_export.demo.evaluation import inpaint, tryon
from dressform_export.demo.evaluation.judging import Patterns
from dressform_export.demo.wardrobe import HELD_OUT
from dressform_export.evaluation import comparison, dataset, layouts, record, serving
from dressform_export.evaluation.errors import EvaluationError, NotComputedError
from dressform_export.evaluation.layouts import Case
from dressform_export.evaluation.sheet import Row, contact_sheet, hole_shown
from dressform_export.evaluation.sizing import Pair, Sizing, opened
from dressform_export.progress import Progress

AS_FOUND = "as in the predictions: see mae_outside_mask"

CELL = (384, 288)
"""Height and width of a picture on the contact sheets: three times the wardrobe's."""


def wardrobe(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Try-on and prompt inpainting of the wardrobe's held-out samples, served."""
    if options.seeds < 0 or options.prompts < 0 or options.seeds + options.prompts == 0:
        raise EvaluationError(f"nothing to evaluate: {options.seeds} seeds and {options.prompts} prompts")
    settings = serving.options(options.set)
    first = HELD_OUT if options.first is None else options.first
    report: dict[str, Any] = {"export": record.exported(options.repository, options.engine), "not_computed": {}}
    report |= {"first_seed": first, "held_out": first >= HELD_OUT, "in_flight": options.in_flight}
    report |= {"settings": settings, "resize": "none", "composite": serving.composite(settings)}
    patterns = None
    try:
        patterns = Patterns()
    except NotComputedError as reason:
        report["not_computed"]["pattern_recognised"] = str(reason)
    with serving.connected(options, progress) as client:
        asker = serving.Asker(client, settings, options.in_flight, progress)
        if options.seeds:
            seeds = range(first, first + options.seeds)
            report["tryon"], rows = tryon.evaluated(asker, seeds, given_mask=options.mask == "given", patterns=patterns)
            _save_sheet(options, "tryon", tryon.COLUMNS, rows)
        if options.prompts:
            seeds = range(first, first + options.prompts)
            report["inpaint"], rows = inpaint.evaluated(asker, seeds, patterns=patterns)
            _save_sheet(options, "inpaint", inpaint.COLUMNS, rows)
    return report


def data_set(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """The test cases of a VITON-HD or DressCode folder, served, or predicted before."""
    paired, predictions = not options.unpaired, options.predictions
    if predictions is not None and (options.repository or options.engine or options.url or options.set):
        raise EvaluationError("--predictions are compared as they are: leave --repository, --engine, --url, --set out")
    if options.layout == "viton-hd":
        cases = layouts.viton_hd(options.data, paired=paired)
    else:
        categories = options.category or tuple(layouts.BODY_PARTS)
        cases = layouts.dresscode(options.data, paired=paired, categories=categories)
    cases = cases[: options.limit]
    report: dict[str, Any] = {"data": options.data.name, "paired": paired}
    if predictions is None:
        settings = serving.options(options.set)
        dataset.check_masks(cases, options.mask)
        report |= {
            "export": record.exported(options.repository, options.engine),
            "composite": serving.composite(settings),
        }
        report |= {"in_flight": options.in_flight, "mask": options.mask, "settings": {"seed": options.seed, **settings}}
        with serving.connected(options, progress) as client:
            asker = serving.Asker(client, settings, options.in_flight, progress)
            report["served"] = dataset.predict(asker, cases, options.out, masks=options.mask, seed=options.seed)
        predictions = options.out / dataset.PREDICTIONS
        masks = {case.name: dataset.mask_file(options.out, case) for case in cases}
    else:
        masks = {case.name: case.mask for case in cases if case.mask.is_file()}
        report["composite"] = AS_FOUND
    sizing = Sizing(options.size, options.interpolation)
    found = layouts.pictures_by_name(predictions)
    pairs = _pairs({case.name: case.person for case in cases}, found, masks)
    report |= {"unused_predictions": len(found) - len(pairs), **_compared(options, pairs, sizing, progress)}
    rows = [_row(*each, sizing) for each in zip(cases[: options.rows], pairs)]
    _save_sheet(options, "tryon", ("person", "garment", "mask", "result", "truth" if paired else "person"), rows)
    return report


def folder(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """A folder of predictions against a folder of truths."""
    sizing = Sizing(options.size, options.interpolation)
    masks = layouts.pictures_by_name(options.masks) if options.masks else {}
    found = layouts.pictures_by_name(options.predictions)
    pairs = _pairs(layouts.pictures_by_name(options.truths), found, masks)
    report = {"data": options.truths.name, "paired": not options.unpaired, "composite": AS_FOUND}
    report |= {"unused_predictions": len(found) - len(pairs), **_compared(options, pairs, sizing, progress)}
    loaded = [(pair.name, *sizing.loaded(pair)) for pair in pairs[: options.rows]]
    rows = [Row((prediction, truth), (name,)) for name, truth, prediction, _ in loaded]
    _save_sheet(options, "predictions", ("prediction", "truth"), rows)
    return report


def _compared(options: argparse.Namespace, pairs: Sequence[Pair], sizing: Sizing, progress: Progress) -> dict[str, Any]:
    paired = not options.unpaired
    found = comparison.compare(pairs, paired=paired, sizing=sizing, inception=options.inception, progress=progress)
    return {"how": comparison.HOW, **found}


def _pairs(truths: dict[str, Path], predictions: dict[str, Path], masks: dict[str, Path]) -> list[Pair]:
    """Truths and predictions by name.

    Raises:
        EvaluationError: where a truth has no prediction.
    """
    missing = [name for name in truths if name not in predictions]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(truths)} pictures have no prediction of their name; the first is {missing[0]}"
        )
    return [Pair(name, truth, predictions[name], masks.get(name)) for name, truth in truths.items()]


def _row(case: Case, pair: Pair, sizing: Sizing) -> Row:
    person, prediction, mask = sizing.loaded(pair)
    garment = np.asarray(opened(case.garment))
    hole = person if mask is None else hole_shown(person, mask)
    return Row((person, garment, hole, prediction, person), (case.name,))


def _save_sheet(options: argparse.Namespace, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    shown = rows[: options.rows]
    if shown:
        contact_sheet(columns, shown, cell=CELL, across=min(2, len(shown))).save(options.out / f"{name}.png")
