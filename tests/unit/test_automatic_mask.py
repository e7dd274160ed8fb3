"""The automatic mask with an injected parser: categories, sizes, and what a try-on makes of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dressform_contract import LABELS
from figures import COLOURS, laid_flat, of, painted, person
from mask.agnostic import agnostic_mask
from mask.automatic import AutomaticMasks
from preprocess.errors import GarmentNotFound, PersonNotFound, RequestError, UnsupportedError
from preprocess.preparation import Export, Prepared, RawRequest, checked, prepare
from preprocess.prompts import PromptTokenizer


def nearest_colours(canvases: np.ndarray) -> np.ndarray:
    """What a parser does: the label whose colour is nearest."""
    distances = np.abs(canvases[..., None, :].astype(int) - COLOURS).sum(-1)
    return distances.argmin(-1).astype(np.uint8)


class Parser:
    """Reads colours; keeps the shapes of what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, canvases: np.ndarray) -> np.ndarray:
        self.asked.append(canvases.shape)
        return nearest_colours(canvases)


@pytest.fixture
def parser() -> Parser:
    return Parser()


@pytest.fixture
def masks(parser: Parser) -> AutomaticMasks:
    return AutomaticMasks.from_manifest({"height": 128, "width": 96, "resample": 2}, parser)


@pytest.mark.parametrize("category", ["upper", "lower", "overall"])
def test_at_the_parsers_own_size_it_is_the_agnostic_mask(masks: AutomaticMasks, parser: Parser, category: str) -> None:
    made = masks.made(np.asarray(painted(person())), category)
    assert np.array_equal(made.pixels, np.where(agnostic_mask(person(), category), 255, 0))
    assert made.pixels.dtype == np.uint8
    assert made.story == {"category": category, "category_from": "given"}
    assert parser.asked == [(1, 128, 96, 3)]


@pytest.mark.parametrize(("name", "category"), [("Upper-clothes", "upper"), ("Pants", "lower"), ("Dress", "overall")])
def test_the_category_is_the_garments_in_one_call(
    masks: AutomaticMasks, parser: Parser, name: str, category: str
) -> None:
    garment = np.asarray(painted(laid_flat(name)))
    made = masks.made(np.asarray(painted(person())), "auto", garment)
    assert made.story == {"category": category, "category_from": "auto"}
    assert parser.asked == [(2, 128, 96, 3)]
    masks.made(np.asarray(painted(person())), "upper", garment)
    assert parser.asked[1:] == [(1, 128, 96, 3)]


def test_without_a_garment_the_category_is_what_is_worn(masks: AutomaticMasks) -> None:
    assert masks.made(np.asarray(painted(person())), "auto").category == "upper"
    assert masks.made(np.asarray(painted(person(dress=True))), "auto").category == "overall"


@pytest.mark.parametrize("size", [(700, 500), (300, 400), (110, 80), (129, 97)])
def test_the_mask_comes_back_at_the_pictures_size(masks: AutomaticMasks, size: tuple[int, int]) -> None:
    height, width = size
    large = painted(person(8)).resize((width, height), Image.Resampling.LANCZOS)
    made = masks.made(np.asarray(large), "lower").pixels
    assert made.shape == size
    assert set(np.unique(made)) == {0, 255}
    true = Image.fromarray(agnostic_mask(person(8), "lower")).resize((width, height))
    expected, actual = np.asarray(true), made > 0
    assert (expected & actual).sum() / (expected | actual).sum() > 0.85


def test_upsampled_borders_are_smooth(masks: AutomaticMasks) -> None:
    """A border that slants moves by single pixels, not by the parser's."""
    made = masks.made(np.asarray(painted(person(8))), "overall").pixels
    edges = (made > 0).argmax(1)[350:600]
    assert (edges > 0).all()
    assert np.abs(np.diff(edges)).max() < 8
    assert len(np.unique(edges % 8)) > 4


def test_what_is_not_found_is_refused(masks: AutomaticMasks) -> None:
    blank = np.full((50, 40, 3), 255, np.uint8)
    shirt = np.asarray(painted(laid_flat("Upper-clothes")))
    with pytest.raises(PersonNotFound, match="no person was found"):
        masks.made(blank, "upper")
    with pytest.raises(PersonNotFound, match="no person was found"):
        masks.made(shirt, "auto", shirt)
    with pytest.raises(GarmentNotFound, match="no garment was found"):
        masks.made(np.asarray(painted(person())), "auto", blank)
    assert (PersonNotFound.code, GarmentNotFound.code) == ("PERSON_NOT_FOUND", "GARMENT_NOT_FOUND")


# --- within a try-on ---------------------------------------------------------------------------------------------


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def manifest(tiny_tryon_repository: Path) -> dict[str, Any]:
    return json.loads((tiny_tryon_repository / "manifest.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(tiny_tryon_repository: Path) -> PromptTokenizer:
    return PromptTokenizer(tiny_tryon_repository / "preprocess" / "tokenizer.json", 77, 49407)


def export(repository: Path, manifest: dict[str, Any], parser: object) -> Export:
    scheduler = json.loads((repository / "denoise" / "scheduler_config.json").read_text())
    return Export.from_manifest(manifest | {"parser": parser}, scheduler)


def test_an_automatic_mask_sent_back_gives_the_same_request(
    tiny_tryon_repository: Path, manifest: dict[str, Any], tokenizer: PromptTokenizer, masks: AutomaticMasks
) -> None:
    served = export(tiny_tryon_repository, manifest, {})
    photo = painted(person(8)).resize((210, 333), Image.Resampling.LANCZOS)

    def prepared(mask: bytes | None, **parameters: Any) -> Prepared:
        garment = png(painted(laid_flat("Dress")))
        raw = RawRequest(png(photo), mask, None, None, garment, {"seed": 1, "resize_mode": "crop"} | parameters)
        assert raw.automatic == (mask is None)
        return prepare(raw, checked(raw, served), served, tokenizer, masks)

    automatic = prepared(None)
    given = prepared(png(Image.fromarray(automatic.mask)))
    for name in ("canvases", "keep", "latent_mask", "mask", "original"):
        assert np.array_equal(getattr(automatic, name), getattr(given, name)), name
    assert automatic.frame["automatic_mask"] == {"category": "overall", "category_from": "auto"}
    assert given.frame["automatic_mask"] == {}
    upper = prepared(None, category="upper", mask_grow=-3, mask_invert=True)
    assert upper.frame["automatic_mask"] == {"category": "upper", "category_from": "given"}
    bare = masks.made(np.asarray(photo), "upper").pixels
    assert (upper.mask[bare > 0] == 0).all()
    assert upper.mask[0, 0] == 255


def test_a_mask_that_vanishes_is_refused(
    tiny_tryon_repository: Path, manifest: dict[str, Any], tokenizer: PromptTokenizer, masks: AutomaticMasks
) -> None:
    served = export(tiny_tryon_repository, manifest, {})
    raw = RawRequest(png(painted(person())), None, None, None, png(painted(laid_flat("Pants"))), {"mask_grow": -40})
    with pytest.raises(RequestError, match="mask is empty after mask_grow -40"):
        prepare(raw, checked(raw, served), served, tokenizer, masks)


def test_without_a_parser_the_way_out_is_named(tiny_tryon_repository: Path, manifest: dict[str, Any]) -> None:
    raw = RawRequest(b"", None, None, None, b"", {})
    with pytest.raises(UnsupportedError, match="tryon needs a mask here.*Send a mask, or export with --parser"):
        checked(raw, export(tiny_tryon_repository, manifest, None))


def test_figures_are_what_they_say() -> None:
    """The drawing and the palette that these tests stand on."""
    assert len(np.unique(COLOURS, axis=0)) == len(LABELS)
    assert np.array_equal(nearest_colours(np.asarray(painted(person()))[None])[0], person())
    assert of(person(), "Face", "Hair", "Upper-clothes", "Pants", "Left-arm", "Right-arm").any()
