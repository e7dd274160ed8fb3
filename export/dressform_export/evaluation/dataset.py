"""Try-on of every case of a data set through a server: predictions and masks, written as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dressform.options import Options
from dressform_export import stages
from dressform_export.evaluation import serving
from dressform_export.evaluation.errors import EvaluationError
from dressform_export.evaluation.layouts import MASKS, Case
from dressform_export.evaluation.serving import Asker

stages.importable()
from mask.agnostic import agnostic_mask  # noqa: E402
from preprocess.errors import PersonNotFound  # noqa: E402

PREDICTIONS = "predictions"
"""The folder of predictions below that of the evaluation."""


def check_masks(cases: Sequence[Case], source: str) -> None:
    """Raise an `EvaluationError` unless every case has what masks from ``source`` (one of `MASKS`) need."""
    if source == "automatic":
        return
    files = [case.mask if source == "given" else case.labels for case in cases]
    missing = [(case, file) for case, file in zip(cases, files, strict=True) if file is None or not file.is_file()]
    if missing:
        case, file = missing[0]
        where = "this data set has no ATR label maps" if file is None else f"{file} is missing"
        raise EvaluationError(
            f"{len(missing)} of {len(cases)} cases have no mask ({case.name}: {where}); "
            f"--mask takes {', '.join(MASKS)} (automatic: the server finds it)"
        )


def predict(asker: Asker, cases: Sequence[Case], out: Path, *, masks: str, seed: int) -> dict[str, Any]:
    """Write the prediction and the mask used of every case below ``out``; returns the settings the server used.

    Case i has the seed ``seed`` + i. ``masks``: one of `MASKS`.
    """

    def one(numbered: tuple[int, Case]) -> dict[str, Any]:
        number, case = numbered
        settings: Options = {"seed": seed + number, **asker.settings, "output_format": "png"}
        mask = _mask(case, masks)
        if mask is None:
            settings["category"] = case.category
        answer = asker.client.tryon(case.person, case.garment, mask=mask, **settings)
        for path, picture in ((_file(out, PREDICTIONS, case), answer.image), (mask_file(out, case), answer.mask_used)):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, compress_level=1)
        return serving.story(answer.info)

    return asker.all(list(enumerate(cases)), one, "try-on")[0]


def mask_file(out: Path, case: Case) -> Path:
    """Where `predict` writes the mask used."""
    return _file(out, "masks", case)


def _file(out: Path, folder: str, case: Case) -> Path:
    return out / folder / f"{case.name}.png"


def _mask(case: Case, source: str) -> Image.Image | Path | None:
    if source == "automatic":
        return None
    if source == "given" or case.labels is None:
        return case.mask
    try:
        with Image.open(case.labels) as picture:  # 8-bit grey or palette: either way its numbers are the labels
            return Image.fromarray(agnostic_mask(np.asarray(picture), case.category))
    except (OSError, PersonNotFound) as error:
        raise EvaluationError(f"{case.labels}: {error}") from error
