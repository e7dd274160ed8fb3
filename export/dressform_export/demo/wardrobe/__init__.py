"""A wardrobe of drawn people and garments: procedural, seeded, with every label known.

>>> sample(7).look.image.shape
(128, 96, 3)
"""

from dressform_export.demo.wardrobe.garments import CATEGORIES, COLOURS, KINDS, PATTERNS, Garment, caption
from dressform_export.demo.wardrobe.labels import ATR
from dressform_export.demo.wardrobe.samples import HELD_OUT, Flat, Look, Sample, sample

__all__ = [
    "ATR",
    "CATEGORIES",
    "COLOURS",
    "HELD_OUT",
    "KINDS",
    "PATTERNS",
    "Flat",
    "Garment",
    "Look",
    "Sample",
    "caption",
    "sample",
]
