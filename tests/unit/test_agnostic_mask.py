"""The agnostic mask from a parser's labels: what it covers, what it spares, how it moves with the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skimage.measure import label as connected
from skimage.morphology import convex_hull_image

from dressform_contract import LABELS
from figures import MIRRORED, laid_flat, of, person
from mask.agnostic import (
    COVERED,
    IDENTITY,
    SPARED,
    GarmentNotFound,
    PersonNotFound,
    agnostic_mask,
    category_of_garment,
    category_of_person,
    connected_parts,
    convex_hull,
    hands,
)


@st.composite
def any_labels(draw: st.DrawFn) -> np.ndarray:
    """Patches of any labels, with specks: from 1 × 1 on, single labels included."""
    height, width, patch = draw(st.integers(1, 60)), draw(st.integers(1, 60)), draw(st.integers(1, 20))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    known = draw(st.lists(st.integers(0, 17), min_size=1, max_size=6))
    coarse = random.choice(known, (-(-height // patch), -(-width // patch))).astype(np.uint8)
    labels = coarse.repeat(patch, 0).repeat(patch, 1)[:height, :width].copy()
    specks = random.random(labels.shape) < draw(st.sampled_from([0, 0.02]))
    labels[specks] = random.integers(0, 18, int(specks.sum()))
    return labels


def near(region: np.ndarray) -> np.ndarray:
    """The pixels of a region and their eight neighbours."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(region, 1), (3, 3)).any((2, 3))


@settings(max_examples=150, deadline=None)
@given(labels=any_labels(), category=st.sampled_from(sorted(COVERED)))
def test_what_must_stay_is_never_covered(labels: np.ndarray, category: str) -> None:
    try:
        mask = agnostic_mask(labels, category)
    except PersonNotFound:
        return
    assert mask.shape == labels.shape
    assert mask.dtype == np.bool_
    assert not (mask & of(labels, *IDENTITY, *SPARED[category])).any()
    assert not (mask & hands(labels)).any()


@settings(max_examples=100, deadline=None)
@given(labels=any_labels(), category=st.sampled_from(sorted(COVERED)))
def test_a_mirrored_picture_gives_the_mirrored_mask(labels: np.ndarray, category: str) -> None:
    try:
        mask = agnostic_mask(labels, category)
    except PersonNotFound:
        with pytest.raises(PersonNotFound):
            agnostic_mask(MIRRORED[labels[:, ::-1]], category)
        return
    mirrored = agnostic_mask(MIRRORED[labels[:, ::-1]], category)
    # A tip is one of several equally far pixels now and then; all else is exact.
    apart = (mirrored[:, ::-1] != mask) & ~of(labels, "Left-arm", "Right-arm")
    assert not (apart & ~near(of(labels, "Left-arm", "Right-arm"))).any()


@pytest.mark.parametrize("category", COVERED)
@pytest.mark.parametrize("sleeves", [False, True])
def test_a_mirrored_person_gives_the_mirrored_mask(category: str, sleeves: bool) -> None:
    mask = agnostic_mask(person(sleeves=sleeves), category)
    assert np.array_equal(agnostic_mask(person(sleeves=sleeves, mirror=True), category)[:, ::-1], mask)


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.sampled_from([0, 0.01, 0.1, 0.6, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_hull_is_convex_and_least(height: int, width: int, share: float, seed: int) -> None:
    region = np.random.default_rng(seed).random((height, width)) < share
    hull = convex_hull(region)
    assert not (region & ~hull).any()
    assert np.array_equal(convex_hull(hull), hull)
    assert np.array_equal(convex_hull(region.T).T, hull)
    assert np.array_equal(convex_hull(region[:, ::-1])[:, ::-1], hull)
    if region.sum() > 3 and region.any(0).sum() > 1 and region.any(1).sum() > 1:
        assert np.array_equal(hull, convex_hull_image(region, offset_coordinates=False))


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    share=st.sampled_from([0, 0.1, 0.4, 0.6, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_connected_parts_are_those_of_scikit_image(height: int, width: int, share: float, seed: int) -> None:
    region = np.random.default_rng(seed).random((height, width)) < share
    ours, theirs = connected_parts(region), connected(region, connectivity=2)
    pairs = {(a, b) for a, b in zip(ours.reshape(-1).tolist(), theirs.reshape(-1).tolist())}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert np.array_equal(ours > 0, region)


@pytest.mark.parametrize("scale", [1, 4, 8])
def test_what_each_category_covers(scale: int) -> None:
    labels = person(scale)
    upper, lower, overall = (agnostic_mask(labels, category) for category in ("upper", "lower", "overall"))
    clear = np.abs(np.arange(128 * scale) // scale - 30) > 3  # away from the neck, which keeps its margin
    assert upper[of(labels, "Upper-clothes") & clear[:, None]].all()
    assert lower[of(labels, "Pants")].all()
    assert overall[of(labels, "Pants")].all()
    arms = of(labels, "Left-arm", "Right-arm")
    assert 0.4 < upper[arms].mean() < 0.8  # all but the hands and their margin
    assert not lower[arms].any()
    assert upper[50 * scale, 33 * scale]  # between arm and body: part of the hull


@pytest.mark.parametrize("scale", [1, 4, 8])
def test_hands_are_the_tips_of_bare_arms(scale: int) -> None:
    labels = person(scale)
    found = hands(labels)
    assert not (found & ~of(labels, "Left-arm", "Right-arm")).any()
    for tip in ((81, 24), (43, 84)):  # hanging; bent upwards, past the elbow
        assert found[tip[0] * scale, tip[1] * scale]
    for elbow in ((60, 28), (60, 67)):
        assert not found[elbow[0] * scale, elbow[1] * scale]


def test_below_a_sleeve_all_of_the_arm_is_hand() -> None:
    labels = person(sleeves=True)
    assert hands(labels)[of(labels, "Right-arm") & (np.arange(128) > 74)[:, None]].all()


def test_a_necklines_skin_is_no_hand() -> None:
    labels = person(sleeves=True).copy()
    labels[31:38, 42:48] = LABELS.index("Right-arm")
    assert not hands(labels)[:40].any()


def test_hands_are_found_without_a_face() -> None:
    labels = person()[32:]
    assert hands(labels)[81 - 32, 24]
    assert not hands(labels)[40 - 32, 32]


def test_a_dress_goes_with_either_half() -> None:
    labels = person(dress=True)
    for category in COVERED:
        mask = agnostic_mask(labels, category)
        dress = of(labels, "Dress") & (np.abs(np.arange(128) - 30) > 3)[:, None]
        assert mask[dress & ~near(hands(labels))].all()


def test_specks_do_not_stretch_the_hull() -> None:
    labels = person().copy()
    expected = agnostic_mask(labels, "upper")
    labels[120:124, 4:9] = LABELS.index("Upper-clothes")
    assert np.array_equal(agnostic_mask(labels, "upper"), expected)


def test_the_mask_of_its_own_hull_is_itself() -> None:
    """A garment that fills its mask already gets no larger hull next time, but for the dilation."""
    labels = person()
    first = agnostic_mask(labels, "lower")
    worn = np.where(first & (labels == 0), LABELS.index("Skirt"), labels).astype(np.uint8)
    again = agnostic_mask(worn, "lower")
    assert not (first & ~again).any()
    rows, columns = np.nonzero(first)
    far = np.ones_like(first)
    far[rows.min() - 4 : rows.max() + 5, columns.min() - 4 : columns.max() + 5] = False
    assert not (again & far).any()


def test_the_category_follows_the_garment() -> None:
    for name, category in (
        ("Upper-clothes", "upper"),
        ("Skirt", "lower"),
        ("Pants", "lower"),
        ("Dress", "overall"),
    ):
        picture = laid_flat(name)
        picture[:5, 5:25] = LABELS.index("Scarf")
        assert category_of_garment(picture) == category
    assert category_of_person(person()) == "upper"
    assert category_of_person(person(dress=True)) == "overall"


def test_what_is_missing_is_named() -> None:
    empty = np.zeros((20, 20), np.uint8)
    with pytest.raises(GarmentNotFound, match=r"looked for Upper-clothes, Skirt.*shows Background 100\.0 %"):
        category_of_garment(empty)
    with pytest.raises(PersonNotFound, match="no person was found.*Background 100"):
        agnostic_mask(empty, "upper")
    with pytest.raises(PersonNotFound, match=r"no person.*Upper-clothes 4\d\.\d %"):
        category_of_person(laid_flat("Upper-clothes"))
    head = person()[:26]
    with pytest.raises(PersonNotFound, match="nothing of the category lower.*Skirt, Pants.*Face"):
        agnostic_mask(head, "lower")
    with pytest.raises(ValueError, match="upper, lower, overall, not 'auto'"):
        agnostic_mask(person(), "auto")


@settings(max_examples=60, deadline=None)
@given(labels=any_labels())
def test_hands_are_arms(labels: np.ndarray) -> None:
    assume(of(labels, "Left-arm", "Right-arm").any())
    found = hands(labels)
    assert not (found & ~of(labels, "Left-arm", "Right-arm")).any()
    if labels.shape[0] <= 160:
        assert found.any()
