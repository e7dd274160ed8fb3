"""Try-on on held-out people and garments, beside what a grey hole and the wrong garment would score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dressform.options import Options
from dressform_contract import LABELS
from dressform_export.demo.evaluation import judging
from dressform_export.demo.evaluation.judging import Patterns
from dressform_export.demo.wardrobe import CATEGORIES, Sample, sample
from dressform_export.evaluation import serving, similarity
from dressform_export.evaluation.colour import mean_difference, pixel_difference
from dressform_export.evaluation.comparison import means, with_hole
from dressform_export.evaluation.serving import Asker
from dressform_export.evaluation.sheet import Row, hole_shown
from dressform_export.evaluation.similarity import covered, iou, mean_absolute_difference, psnr, ssim
from dressform_export.evaluation.sizing import Pixels, Region

COLUMNS = ("person", "garment", "mask used", "result", "truth")
PROTECTED = [LABELS.index(name) for name in ("Hair", "Face")]

HOW = {
    "task": "person: other_look, who wears another garment of the category; garment: flat; truth: look. No prompt, the "
    "sample's seed, the server's defaults but for the settings named",
    "true_mask": "the agnostic mask of other_look's true labels: where SSIM and PSNR are measured, whatever was used",
    "grey": "control: other_look with the true mask's pixels at 128",
    "wrong": "control: other_look itself, the person in the wrong garment",
    "truth": "control: look itself",
    "ssim": similarity.HOW["ssim_in_mask"],
    "psnr": similarity.HOW["psnr_in_mask"],
    "delta_e": "CIEDE2000 between the garment's mean colour in the truth and in the picture, means in CIELAB over the "
    "pixels that have the garment's label in the truth",
    "delta_e_pixels": "mean of the CIEDE2000 of each of these pixels",
    "pattern_recognised": judging.HOW["pattern_recognised"],
    "mask_iou": "intersection over union of the mask used and the true mask",
    "protected_covered": "share of the true pixels of face, hair and hands that the mask used covers",
    "protected_changed": "mean absolute difference of 8-bit values of these pixels, result against person: what soft "
    "compositing lets through",
}


@dataclass(frozen=True)
class Fitting:
    """One try-on that was served: result uint8 [H, W, 3], mask_used bool [H, W]."""

    sample: Sample
    result: Pixels
    mask_used: Region
    info: Mapping[str, Any]

    @property
    def true_mask(self) -> Region:
        """See `HOW`."""
        return self.sample.mask(other=True) > 0

    @property
    def pictures(self) -> dict[str, Pixels]:
        """The result and the controls."""
        person = self.sample.other_look.image
        grey = with_hole(person, self.true_mask)
        return {"result": self.result, "grey": grey, "wrong": person, "truth": self.sample.look.image}


def evaluated(
    asker: Asker, seeds: Sequence[int], *, given_mask: bool, patterns: Patterns | None
) -> tuple[dict[str, Any], list[Row]]:
    """The report on the try-ons of ``seeds``, and a row of the contact sheet for each.

    Args:
        given_mask: send the true mask, rather than let the server find one.
        patterns: None leaves pattern recognition out.
    """

    def fitted(seed: int) -> Fitting:
        one = sample(seed)
        mask = one.mask(other=True) if given_mask else None
        settings: Options = {"seed": seed, **asker.settings, "output_format": "png"}
        answer = asker.client.tryon(one.other_look.image, one.flat.image, mask=mask, **settings)
        result = serving.picture(answer, one.other_look.image)
        return Fitting(one, result, np.asarray(answer.mask_used.convert("L")) >= 128, answer.info)

    fittings = asker.all(seeds, fitted, "try-on")
    rows = [judged(fitting) for fitting in fittings]
    if patterns is not None:
        add_patterns(rows, fittings, patterns)
    report = {
        "how": HOW,
        "mask": "the true mask, given" if given_mask else "automatic",
        "served": serving.story(fittings[0].info),
        "summary": {"samples": len(rows), **summary(rows)},
        "samples": rows,
    }
    return report, [_row(fitting, row) for fitting, row in zip(fittings, rows, strict=True)]


def judged(fitting: Fitting) -> dict[str, Any]:
    """The figures of one try-on; those with controls by picture."""
    one, mask, truth = fitting.sample, fitting.true_mask, fitting.sample.look.image
    worn = judging.region(one.look, one.category)
    compared = {name: picture for name, picture in fitting.pictures.items() if name != "truth"}
    kept = np.isin(one.other_look.labels, PROTECTED) | one.other_look.hands
    return {
        "seed": one.seed,
        "category": one.category,
        "garment": one.garment.caption,
        "ssim": {name: ssim(truth, picture, mask) for name, picture in compared.items()},
        "psnr": {name: psnr(truth, picture, mask) for name, picture in compared.items()},
        "delta_e": {name: mean_difference(truth[worn], picture[worn]) for name, picture in compared.items()},
        "delta_e_pixels": {name: pixel_difference(truth[worn], picture[worn]) for name, picture in compared.items()},
        "mask_iou": iou(fitting.mask_used, mask),
        "protected_covered": covered(fitting.mask_used, kept),
        "protected_changed": mean_absolute_difference(one.other_look.image, fitting.result, kept),
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over ``rows``; medians of ΔE, which a few failures can pull far; the masks' figures by category."""
    by_picture = [key for key, value in rows[0].items() if isinstance(value, Mapping)]
    found: dict[str, Any] = {key: means([row[key] for row in rows]) for key in by_picture}
    pictures = rows[0]["delta_e"]
    found["delta_e_median"] = {name: float(np.median([row["delta_e"][name] for row in rows])) for name in pictures}
    masks = {"all": rows} | {category: [row for row in rows if row["category"] == category] for category in CATEGORIES}
    found["mask_iou"] = {name: means(group)["mask_iou"] for name, group in masks.items() if group}
    for name in ("protected_covered", "protected_changed"):
        values = [row[name] for row in rows]
        found[name] = {"mean": float(np.mean(values)), "worst": max(values)}
    return found


def add_patterns(rows: list[dict[str, Any]], fittings: Sequence[Fitting], patterns: Patterns) -> None:
    """The pattern seen in each picture, and whether it is the garment's."""
    regions = [judging.region(fitting.sample.look, fitting.sample.category) for fitting in fittings]
    for row in rows:
        row["pattern_seen"], row["pattern_recognised"] = {}, {}
    for name in fittings[0].pictures:
        seen = patterns.seen([fitting.pictures[name] for fitting in fittings], regions)
        for row, fitting, pattern in zip(rows, fittings, seen, strict=True):
            row["pattern_seen"][name] = pattern
            row["pattern_recognised"][name] = float(pattern == fitting.sample.garment.pattern)


def _row(fitting: Fitting, figures: Mapping[str, Any]) -> Row:
    one, seen = fitting.sample, figures.get("pattern_seen")
    person = one.other_look.image
    images = (person, one.flat.image, hole_shown(person, fitting.mask_used), fitting.result, one.look.image)
    scores = f"colour off by {figures['delta_e']['result']:.1f}, wrong garment {figures['delta_e']['wrong']:.1f};  "
    scores += f"SSIM {figures['ssim']['result']:.2f}, grey {figures['ssim']['grey']:.2f};  "
    scores += f"mask IoU {figures['mask_iou']:.2f}" + (f";  seen as {seen['result']}" if seen else "")
    return Row(images, (f"{one.seed}  {one.garment.caption}", scores))
