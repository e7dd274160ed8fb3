"""Samples: a person in a garment, the same person in another, both garments laid flat, labels and caption."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dressform_export import stages
from dressform_export.demo.wardrobe import clothes, people
from dressform_export.demo.wardrobe.drawing import Canvas
from dressform_export.demo.wardrobe.garments import CATEGORIES, Garment, caption, random_garment

stages.importable()
from mask.agnostic import agnostic_mask  # noqa: E402

HELD_OUT = 1_000_000
"""Seeds from here on are never trained on."""


@dataclass(frozen=True)
class Look:
    """A person as dressed. image uint8 [H, W, 3]; labels uint8 [H, W] (ATR numbers); hands bool [H, W]."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    hands: NDArray[np.bool_]
    worn: tuple[Garment, ...]


@dataclass(frozen=True)
class Flat:
    """A garment laid flat on white. image uint8 [H, W, 3]; labels uint8 [H, W] (its ATR number, 0 elsewhere)."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One person and two garments of one category; drawn when first asked for."""

    seed: int
    person: people.Person
    garment: Garment
    other: Garment
    rest: Garment | None
    height: int
    width: int

    @property
    def category(self) -> str:
        """``upper``, ``lower`` or ``overall``."""
        return self.garment.category

    @property
    def caption(self) -> str:
        """A phrasing of the garment's caption, the same for the same seed."""
        return caption(self.garment, np.random.default_rng((self.seed, 1)))

    @cached_property
    def look(self) -> Look:
        """The person wearing `garment`."""
        return self.wearing(self.garment)

    @cached_property
    def other_look(self) -> Look:
        """The same person, pose and other clothes, wearing `other`."""
        return self.wearing(self.other)

    @cached_property
    def flat(self) -> Flat:
        """`garment` laid flat."""
        return lay_flat(self.garment, self.height, self.width)

    @cached_property
    def other_flat(self) -> Flat:
        """`other` laid flat."""
        return lay_flat(self.other, self.height, self.width)

    def mask(self, *, other: bool = False) -> NDArray[np.uint8]:
        """The category's agnostic mask on `look` (`other_look`, if ``other``), uint8 [H, W], 0 and 255."""
        look = self.other_look if other else self.look
        return agnostic_mask(look.labels, self.category).astype(np.uint8) * np.uint8(255)

    def wearing(self, *garments: Garment) -> Look:
        """The person in these garments, and in the rest of their own clothes."""
        worn = {garment.category: garment for garment in (*((self.rest,) if self.rest else ()), *garments)}
        return draw_look(self.person, worn, self.height, self.width)


def sample(seed: int, category: str | None = None, height: int = 128, width: int = 96) -> Sample:
    """The sample of a seed, the same at every size; ``category`` is drawn from the seed too where not given.

    Raises:
        ValueError: for an unknown category, or a size that is not 4:3 and a multiple of 32 × 24.
    """
    if category is not None and category not in CATEGORIES:
        raise ValueError(f"category must be one of {', '.join(CATEGORIES)}, not {category!r}")
    if height <= 0 or height * 3 != width * 4 or height % 32:
        raise ValueError(f"a sample's size must be 4:3 and a multiple of 32 × 24, not {height} × {width}")
    person_rng, garment_rng = np.random.default_rng(seed).spawn(2)
    category = category or str(garment_rng.choice(CATEGORIES, p=(0.45, 0.3, 0.25)))
    garment = random_garment(garment_rng, category)
    other = random_garment(garment_rng, category, unlike=garment)
    rest = {"upper": "lower", "lower": "upper"}.get(category)
    return Sample(
        seed=seed,
        person=people.random_person(person_rng),
        garment=garment,
        other=other,
        rest=random_garment(garment_rng, rest) if rest else None,
        height=height,
        width=width,
    )


def draw_look(person: people.Person, worn: dict[str, Garment], height: int, width: int) -> Look:
    """A person in ``worn`` (category → garment: an overall, or an upper and a lower)."""
    canvas = Canvas(height, width)
    body = person.body
    people.draw_room(canvas, person)
    people.draw_hair_behind(canvas, person)
    people.draw_legs(canvas, person)
    if "lower" in worn:
        clothes.draw_lower(canvas, body, worn["lower"])
    people.draw_chest(canvas, person)
    people.draw_neck(canvas, person)
    top = worn["overall"] if "overall" in worn else worn["upper"]
    clothes.draw_top(canvas, body, top)
    people.draw_arms(canvas, person)
    clothes.draw_sleeves(canvas, body, top)
    hands = people.draw_hands(canvas, person)
    people.draw_head(canvas, person)
    return Look(canvas.image(), canvas.label_map(), hands, tuple(worn.values()))


def lay_flat(garment: Garment, height: int, width: int) -> Flat:
    """``garment`` laid flat."""
    canvas = Canvas(height, width)
    clothes.draw_flat(canvas, garment)
    return Flat(canvas.image(), canvas.label_map())
