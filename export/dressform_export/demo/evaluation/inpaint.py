"""Prompt inpainting on held-out people: does the picture show what the prompt names, and follow what is changed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dressform.options import Options
from dressform_contract import PARAMETERS
from dressform_export.demo.evaluation import judging
from dressform_export.demo.evaluation.judging import Patterns, colours_present, inner, named_share, named_shares
from dressform_export.demo.wardrobe import COLOURS, Garment, Look, Sample, sample
from dressform_export.evaluation import serving
from dressform_export.evaluation.colour import chroma, mean_difference, shares
from dressform_export.evaluation.comparison import means
from dressform_export.evaluation.serving import Asker
from dressform_export.evaluation.sheet import Row, hole_shown
from dressform_export.evaluation.sizing import Pixels, Region

COLUMNS = ("person", "mask", "result", "truth", "other prompt", "its truth")
GUIDANCE_SCALES = (1.0, 3.0, 7.5, 12.0)
EFFECT_SEEDS = 20
"""Of how many samples the effects of guidance scale and negative prompt are measured."""

HOW = {
    "task": "picture: other_look; mask: the agnostic mask of its true labels; prompt: the garment's plain caption; "
    "seed: the sample's; the server's defaults but for the settings named",
    **judging.HOW,
    "wrong": "control: other_look, the person in the wrong garment, judged by the prompt's words",
    "truth": "control: look, the person in the garment that the prompt names",
    "changed": "the same request with the other garment's caption: the picture judged by its new words, and by the old "
    "ones (old_words); delta_e: CIEDE2000 between the mean colours of both pictures where both garments would be",
    "guidance_scale": f"the first {EFFECT_SEEDS} samples again at other guidance scales; chroma: mean C* of CIELAB",
    "negative_prompt": f"the first {EFFECT_SEEDS} samples with the garment's kind alone as prompt: the share of the "
    "colour that dominates then (none), when a plain garment of that colour is the negative prompt (named), and when "
    "one of the least like colour is (unrelated)",
}


@dataclass(frozen=True)
class Edit:
    """One request: ``sample``'s person repainted as ``prompt`` says."""

    sample: Sample
    prompt: str
    negative: str | None = None
    guidance_scale: float | None = None


def evaluated(asker: Asker, seeds: Sequence[int], *, patterns: Patterns | None) -> tuple[dict[str, Any], list[Row]]:
    """The report on the prompts of ``seeds``, and a row of the contact sheet for each; ``patterns`` None: left out."""
    samples = [sample(seed) for seed in seeds]
    looks, other_looks = [one.look for one in samples], [one.other_look for one in samples]
    wanted, others = [one.garment for one in samples], [one.other for one in samples]
    results, info = _pictures(asker, [Edit(one, one.garment.caption) for one in samples], "prompts")
    changed, _ = _pictures(asker, [Edit(one, one.other.caption) for one in samples], "changed prompts")
    by_picture = {"result": results, "wrong": _images(other_looks), "truth": _images(looks)}
    judgements = {name: _obedience(pictures, looks, wanted, patterns) for name, pictures in by_picture.items()}
    new_words = _obedience(changed, other_looks, others, patterns)
    old_words = _obedience(changed, looks, wanted, patterns)
    moved = [_moved(*each) for each in zip(samples, results, changed, strict=True)]
    rows = [
        {
            "seed": one.seed,
            "prompt": one.garment.caption,
            **{name: found[i] for name, found in judgements.items()},
            "changed": {"prompt": one.other.caption, **new_words[i], "old_words": old_words[i], "delta_e": moved[i]},
        }
        for i, one in enumerate(samples)
    ]
    few = samples[:EFFECT_SEEDS]
    report = {
        "how": HOW,
        "served": serving.story(info),
        "summary": {
            "samples": len(rows),
            **{name: means(found) for name, found in judgements.items()},
            "changed": {**means(new_words), "old_words": means(old_words), "delta_e": float(np.mean(moved))},
            "guidance_scale": _guidance(asker, few, patterns),
            "negative_prompt": _negative(asker, few),
        },
        "samples": rows,
    }
    return report, [_row(*each) for each in zip(samples, results, changed, rows, strict=True)]


def judged(picture: Pixels, worn: Region, garment: Garment) -> dict[str, float]:
    """Whether the colours that ``garment`` names are in the pixels ``worn`` bool [H, W] of a picture; see `HOW`."""
    found = named_shares(picture[inner(worn)], garment)
    share = named_share(found, garment)
    return {
        "colour_dominates": float(share > 0.5),
        "colours_present": float(colours_present(found, garment)),
        "named_share": share,
    }


def _pictures(asker: Asker, edits: Sequence[Edit], title: str) -> tuple[list[Pixels], Mapping[str, Any]]:
    """The picture of each edit, and the story of the first."""

    def answered(edit: Edit) -> tuple[Pixels, Mapping[str, Any]]:
        one = edit.sample
        settings: Options = {"seed": one.seed, **asker.settings, "output_format": "png"}
        if edit.guidance_scale is not None:
            settings["guidance_scale"] = edit.guidance_scale
        answer = asker.client.inpaint(
            one.other_look.image, one.mask(other=True), edit.prompt, negative_prompt=edit.negative, **settings
        )
        return serving.picture(answer, one.other_look.image), answer.info

    answers = asker.all(edits, answered, title)
    return [picture for picture, _ in answers], answers[0][1]


def _images(looks: Sequence[Look]) -> list[Pixels]:
    return [look.image for look in looks]


def _obedience(
    pictures: Sequence[Pixels], looks: Sequence[Look], garments: Sequence[Garment], patterns: Patterns | None
) -> list[dict[str, Any]]:
    """Each picture judged by its garment's words, where its look wears that garment."""
    regions = [judging.region(look, garment.category) for look, garment in zip(looks, garments, strict=True)]
    rows: list[dict[str, Any]] = [judged(*each) for each in zip(pictures, regions, garments, strict=True)]
    if patterns is not None:
        for row, garment, seen in zip(rows, garments, patterns.seen(pictures, regions), strict=True):
            row |= {"pattern_seen": seen, "pattern_recognised": float(seen == garment.pattern)}
    return rows


def _moved(one: Sample, a: Pixels, b: Pixels) -> float:
    both = judging.region(one.look, one.category) & judging.region(one.other_look, one.category)
    return mean_difference(a[both], b[both])


def _guidance(asker: Asker, samples: Sequence[Sample], patterns: Patterns | None) -> dict[str, Any]:
    found = {}
    looks, garments = [one.look for one in samples], [one.garment for one in samples]
    for scale in GUIDANCE_SCALES:
        edits = [Edit(one, one.garment.caption, guidance_scale=scale) for one in samples]
        pictures, _ = _pictures(asker, edits, f"guidance scale {scale:g}")
        colourful = [
            chroma(picture[judging.region(one.look, one.category)])
            for picture, one in zip(pictures, samples, strict=True)
        ]
        row = means(_obedience(pictures, looks, garments, patterns))
        found[f"{scale:g}"] = {**row, "chroma": float(np.mean(colourful))}
    return {"default": PARAMETERS["guidance_scale"].default, "samples": len(samples), "by_scale": found}


def _negative(asker: Asker, samples: Sequence[Sample]) -> dict[str, Any]:
    neutral = [Edit(one, kind_alone(one.garment)) for one in samples]
    before = _shares(_pictures(asker, neutral, "no negative prompt")[0], samples)
    dominant = [max(found, key=lambda name: found[name]) for found in before]
    kept = {"none": before}
    for title, names in (("named", dominant), ("unrelated", [farthest(name) for name in dominant])):
        garments = [plain(edit.sample.garment, name) for edit, name in zip(neutral, names, strict=True)]
        edits = [replace(edit, negative=each.caption) for edit, each in zip(neutral, garments, strict=True)]
        kept[title] = _shares(_pictures(asker, edits, f"negative prompt, {title}")[0], samples)
    shares = {
        title: float(np.mean([found[name] for found, name in zip(each, dominant, strict=True)]))
        for title, each in kept.items()
    }
    return {"samples": len(samples), "share_of_dominant_colour": shares}


def _shares(pictures: Sequence[Pixels], samples: Sequence[Sample]) -> list[dict[str, float]]:
    """The shares of the wardrobe's colours in the garment of each picture."""
    areas = [inner(judging.region(one.look, one.category)) for one in samples]
    return [shares(picture[area], COLOURS) for picture, area in zip(pictures, areas, strict=True)]


def plain(garment: Garment, colour: str) -> Garment:
    """``garment`` in one ``colour``."""
    return replace(garment, pattern="plain", colour=colour, second=None)


def kind_alone(garment: Garment) -> str:
    """A prompt that names no colour and no pattern, as "a t-shirt"."""
    return garment.kind if garment.kind == "trousers" else f"a {garment.kind}"


def farthest(name: str) -> str:
    """The wardrobe's colour that is least like ``name``, by CIEDE2000."""
    here = np.array([COLOURS[name]], np.uint8)
    return max(COLOURS, key=lambda other: mean_difference(here, np.array([COLOURS[other]], np.uint8)))


def _row(one: Sample, result: Pixels, changed: Pixels, figures: Mapping[str, Any]) -> Row:
    person = one.other_look.image
    hole = hole_shown(person, one.mask(other=True) > 0)
    images = (person, hole, result, one.look.image, changed, one.other_look.image)
    seen = [figures[name].get("pattern_seen", "") for name in ("result", "changed")]
    told = [figures["prompt"], figures["changed"]["prompt"]]
    shown = [figures[name]["named_share"] for name in ("result", "changed")]
    words = [f"“{text}”: {share:.0%} {pattern}" for text, share, pattern in zip(told, shown, seen, strict=True)]
    return Row(images, (f"{one.seed}  {words[0]}", f"then  {words[1]}"))
