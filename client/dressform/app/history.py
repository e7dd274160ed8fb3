"""The history of a session: the pictures that were made, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image

from dressform import Result
from dressform.app.order import Order
from dressform.app.photos import LONGEST_SHOWN, Photo, flattened

LONGEST = 24
"""Entries that are kept; the oldest go first."""

_FILES = {"png": ("png", "image/png"), "jpeg": ("jpg", "image/jpeg"), "webp": ("webp", "image/webp")}


@dataclass(frozen=True)
class Entry:
    """What one order became. ``number`` counts the session's pictures from 1."""

    number: int
    order: Order
    result: Result

    @cached_property
    def shown(self) -> list[Image.Image]:
        """Its pictures, small."""
        pictures = [flattened(image) for image in self.result.images]
        for picture in pictures:
            picture.thumbnail((LONGEST_SHOWN, LONGEST_SHOWN))
        return pictures

    @property
    def media(self) -> str:
        """The media type of its files."""
        return self._file[1]

    def file_name(self, i: int) -> str:
        """A name for its ``i``-th picture's file."""
        return f"dressform-{self.number}-seed-{self.result.seeds[i]}.{self._file[0]}"

    def photo(self, i: int) -> Photo:
        """Its ``i``-th picture, to be dressed further."""
        return Photo.read(f"Picture {self.number}", self.result.encoded[i])

    @property
    def line(self) -> str:
        """How it was made."""
        info = self.result.info
        parts = [", ".join(f"seed {seed}" for seed in self.result.seeds)]
        if "steps" in info:
            parts.append(f"{info['steps']} steps")
        if "milliseconds" in info:
            parts.append(f"{info['milliseconds']['total'] / 1000:.1f} s")
        return " · ".join(parts)

    @property
    def _file(self) -> tuple[str, str]:
        return _FILES[str(self.order.options.get("output_format") or "png")]


@dataclass
class History:
    """Entries, oldest first, and the one that is looked at."""

    entries: list[Entry] = field(default_factory=list)
    selected: Entry | None = None
    made: int = 0

    def add(self, order: Order, result: Result) -> Entry:
        """A new entry, which is then looked at."""
        self.made += 1
        self.selected = Entry(self.made, order, result)
        self.entries = [*self.entries, self.selected][-LONGEST:]
        return self.selected

    def __iter__(self) -> Iterator[Entry]:
        """Newest first."""
        return reversed(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
