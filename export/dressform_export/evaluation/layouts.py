"""Data sets on disk: VITON-HD, DressCode, and a plain folder of pictures.

VITON-HD (Choi et al. 2021, with HR-VITON's ``agnostic-mask``)::

    test_pairs.txt                      person and another garment, e.g. "00006_00.jpg 08348_00.jpg"
    test/image/00006_00.jpg             the person, who wears the garment of the same name
    test/cloth/00006_00.jpg
    test/agnostic-mask/00006_00_mask.png    white is repainted

DressCode (Morelli et al. 2022, with CatVTON's ``agnostic_masks``), in each of ``upper_body lower_body dresses``::

    test_pairs_paired.txt, test_pairs_unpaired.txt      "000001_0.jpg 000001_1.jpg"
    images/000001_0.jpg, images/000001_1.jpg            person, garment
    agnostic_masks/000001_0.png                         white is repainted
    label_maps/000001_4.png                             ATR labels of the person
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dressform_export.evaluation.errors import EvaluationError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
Category = Literal["upper", "lower", "overall"]

BODY_PARTS: dict[Category, str] = {"upper": "upper_body", "lower": "lower_body", "overall": "dresses"}
"""DressCode's folder of each category."""

MASKS = ("given", "labels", "automatic")
"""Where masks come from: the data set's own, made from its label maps, or found by the server."""


@dataclass(frozen=True)
class Case:
    """One try-on. ``name``: the prediction's path below its folder, without suffix. Files may be missing.

    ``mask``: white is repainted. ``labels``: ATR label map of the person; None where the data set has none.
    """

    name: str
    person: Path
    garment: Path
    category: Category
    mask: Path
    labels: Path | None


def viton_hd(folder: Path, *, paired: bool) -> list[Case]:
    """The test cases of a VITON-HD folder.

    Raises:
        EvaluationError: where the list or a picture is missing, or the list is of the other kind.
    """
    test = folder / "test"
    listing = _first(folder, (f"test_pairs_{'paired' if paired else 'unpaired'}.txt", "test_pairs.txt"))
    pairs = [(person, person if paired else garment) for person, garment in _pairs(listing)]
    if not paired and all(person == garment for person, garment in pairs):
        raise EvaluationError(f"{listing} pairs every person with their own garment: leave --unpaired out")
    return _checked(
        Case(
            name=Path(person).stem,
            person=test / "image" / person,
            garment=test / "cloth" / garment,
            category="upper",
            mask=test / "agnostic-mask" / f"{Path(person).stem}_mask.png",
            labels=None,  # image-parse-v3 has the labels of LIP
        )
        for person, garment in pairs
    )


def dresscode(folder: Path, *, paired: bool, categories: Collection[Category] = tuple(BODY_PARTS)) -> list[Case]:
    """The test cases of a DressCode folder, of all ``categories`` (upper, lower, overall).

    Raises:
        EvaluationError: where a category, a list or a picture is missing.
    """
    cases = []
    for category in categories:
        part = folder / BODY_PARTS[category]
        if not part.is_dir():
            raise EvaluationError(f"{folder} has no {part.name}: name the categories that it has (--category)")
        for person, garment in _pairs(_first(part, (f"test_pairs_{'paired' if paired else 'unpaired'}.txt",))):
            stem = Path(person).stem
            labels = part / "label_maps" / f"{stem.rpartition('_')[0]}_4.png"
            mask = part / "agnostic_masks" / f"{stem}.png"
            images = part / "images"
            cases.append(Case(f"{part.name}/{stem}", images / person, images / garment, category, mask, labels))
    return _checked(iter(cases))


def pictures_by_name(folder: Path) -> dict[str, Path]:
    """The pictures of a folder and its subfolders by their path without suffix, sorted.

    Raises:
        EvaluationError: where the folder is missing, holds no picture, or two of one name.
    """
    if not folder.is_dir():
        raise EvaluationError(f"there is no folder {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise EvaluationError(f"{folder} has two pictures named {name}: {found[name].name} and {path.name}")
            found[name] = path
    if not found:
        raise EvaluationError(f"{folder} holds no picture ({', '.join(PICTURES)})")
    return found


def _pairs(listing: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if len(words) == 2:
            pairs.append((words[0], words[1]))
        elif words:
            raise EvaluationError(f"{listing}, line {number}: a person and a garment were expected, not {line!r}")
    if not pairs:
        raise EvaluationError(f"{listing} lists no pair")
    return pairs


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise EvaluationError(f"{folder} has no {' or '.join(names)}")


def _checked(cases: Iterator[Case]) -> list[Case]:
    """``cases``, whose pictures are all there and whose names differ."""
    found = list(cases)
    missing = sorted({path for case in found for path in (case.person, case.garment) if not path.is_file()})
    if missing:
        raise EvaluationError(f"{len(missing)} pictures are missing: {_some([str(path) for path in missing])}")
    names = [case.name for case in found]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise EvaluationError(f"the pairs name {len(twice)} persons twice: {_some(twice)}")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
