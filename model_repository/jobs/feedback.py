"""What people thought of their pictures. No Triton here."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from dressform_contract import MAX_ID
from preprocess.errors import RequestError

RATINGS = ("up", "down")
MAX_COMMENT = 500
"""Longest comment, in characters."""


@dataclass(frozen=True)
class Feedback:
    """A rating of the picture that the request ``id`` made; ``comment`` may be empty.

    Raises:
        RequestError: at anything that is not allowed.
    """

    id: str
    rating: str
    comment: str = ""

    def __post_init__(self) -> None:
        if self.rating not in RATINGS:
            raise RequestError(f"rating must be one of {', '.join(RATINGS)}, not {self.rating!r:.60}")
        for name, text, most in (("id", self.id, MAX_ID), ("comment", self.comment, MAX_COMMENT)):
            if len(text) > most:
                raise RequestError(f"{name} must have at most {most} characters, not {len(text)}")
            controls = [character for character in text if unicodedata.category(character) == "Cc"]
            if controls:
                raise RequestError(f"{name} must have no control characters; there is {controls[0]!r}")
