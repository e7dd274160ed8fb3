"""What the evaluation says of pictures whose quality is known: the truth, a grey hole, the wrong garment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from dressform_export.demo.evaluation import inpaint, judging, tryon
from dressform_export.demo.evaluation.classifier import PatternClassifier, save_classifier
from dressform_export.demo.evaluation.tryon import Fitting
from dressform_export.demo.wardrobe import COLOURS, HELD_OUT, PATTERNS, Sample, sample
from dressform_export.evaluation.errors import NotComputedError

SEEDS = range(HELD_OUT + 5_000, HELD_OUT + 5_030)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    found = [sample(seed) for seed in SEEDS]
    assert {one.garment.pattern for one in found} == set(PATTERNS)
    assert len({one.category for one in found}) == 3
    return found


def fitting(one: Sample, result: np.ndarray) -> Fitting:
    return Fitting(one, result, one.mask(other=True) > 0, {})


def test_the_truth_is_told_from_both_controls(samples: list[Sample]) -> None:
    rows = [tryon.judged(fitting(one, one.look.image)) for one in samples]
    for row in rows:
        assert row["delta_e"]["result"] == 0
        assert row["ssim"]["result"] == pytest.approx(1, abs=1e-6)
        assert max(row["ssim"]["grey"], row["ssim"]["wrong"]) < 0.95
        assert row["delta_e"]["wrong"] > 1
        assert row["mask_iou"] == 1
        assert row["protected_covered"] == 0
    summary = tryon.summary(rows)
    assert summary["delta_e"]["wrong"] > 30
    assert summary["ssim"]["result"] > summary["ssim"]["grey"] + 0.5
    assert set(summary["mask_iou"]) == {"all", "upper", "lower", "overall"}


def test_a_result_that_is_a_control_scores_as_it(samples: list[Sample]) -> None:
    for one in samples[:5]:
        wrong = tryon.judged(fitting(one, one.other_look.image))
        for name in ("ssim", "psnr", "delta_e", "delta_e_pixels"):
            assert wrong[name]["result"] == wrong[name]["wrong"]
        grey = tryon.judged(fitting(one, fitting(one, one.look.image).pictures["grey"]))
        assert grey["ssim"]["result"] == grey["ssim"]["grey"]


def test_the_colour_is_that_of_the_pixels_where_the_truth_wears_the_garment(samples: list[Sample]) -> None:
    differing = 0
    for one in samples[:8]:
        worn, other = (judging.region(look, one.category) for look in (one.look, one.other_look))
        differing += int((worn != other).any())
        black = one.look.image.copy()
        black[worn] = 0
        expected = deltaE_ciede2000(rgb2lab(one.look.image[worn] / 255).mean(0), np.zeros(3))
        assert tryon.judged(fitting(one, black))["delta_e"]["result"] == pytest.approx(float(expected))
    assert differing > 3, "too alike to tell"


def test_masks_are_judged_against_the_true_one(samples: list[Sample]) -> None:
    one = samples[0]
    row = tryon.judged(Fitting(one, one.look.image, np.ones(one.look.labels.shape, bool), {}))
    assert row["mask_iou"] == pytest.approx((one.mask(other=True) > 0).mean())
    assert row["protected_covered"] == 1
    changed = one.other_look.image.copy()
    changed[one.other_look.hands] ^= 255
    assert tryon.judged(fitting(one, changed))["protected_changed"] > 0
    assert tryon.judged(fitting(one, one.other_look.image))["protected_changed"] == 0


def test_named_colours_are_found_in_the_truth_and_not_in_the_other_garment(samples: list[Sample]) -> None:
    found = {"truth": [], "wrong": []}
    for one in samples:
        worn = judging.region(one.look, one.category)
        for name, look in (("truth", one.look), ("wrong", one.other_look)):
            found[name].append(inpaint.judged(look.image, worn, one.garment))
    for measure in ("colour_dominates", "colours_present"):
        assert all(row[measure] == 1 for row in found["truth"])
        assert np.mean([row[measure] for row in found["wrong"]]) < 0.2


def test_one_colour_of_two_is_not_both(samples: list[Sample]) -> None:
    one = next(one for one in samples if one.garment.pattern == "horizontal stripes")
    worn = judging.region(one.look, one.category)
    plain = one.look.image.copy()
    plain[worn] = COLOURS[one.garment.colour]
    judged = inpaint.judged(plain, worn, one.garment)
    assert judged == {"colour_dominates": 1, "colours_present": 0, "named_share": 1}


def test_a_region_keeps_its_inside() -> None:
    area = np.zeros((9, 9), bool)
    area[2:7, 2:7] = True
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(judging.inner(area), expected)
    thin = np.zeros((9, 9), bool)
    thin[4] = True
    np.testing.assert_array_equal(judging.inner(thin), thin)


def test_patterns_are_named_by_the_classifier_or_its_lack_is_a_reason(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(NotComputedError, match="the pattern classifier cannot be loaded"):
        judging.Patterns(tmp_path / "classifier.safetensors")
    classifier = PatternClassifier()
    with torch.no_grad():
        classifier.head.weight.zero_()
        classifier.head.bias.copy_(torch.eye(len(PATTERNS))[PATTERNS.index("dots")])
    save_classifier(classifier, tmp_path / "classifier.safetensors")
    patterns = judging.Patterns(tmp_path / "classifier.safetensors")
    fittings = [fitting(one, one.look.image) for one in samples]
    rows = [tryon.judged(each) for each in fittings[:3]]
    tryon.add_patterns(rows, fittings[:3], patterns)
    for row, one in zip(rows, samples, strict=False):
        assert set(row["pattern_seen"].values()) == {"dots"}
        assert row["pattern_recognised"] == dict.fromkeys(fittings[0].pictures, float(one.garment.pattern == "dots"))
    assert set(tryon.summary(rows)["pattern_recognised"]) == {"result", "grey", "wrong", "truth"}


def test_prompts_of_the_effects() -> None:
    one = sample(HELD_OUT)
    assert inpaint.kind_alone(one.garment) == "a long-sleeved shirt"
    assert inpaint.plain(one.garment, "orange").caption == "an orange long-sleeved shirt"
    assert inpaint.farthest("white") == "black"
