"""The history of a session: the pictures that were made, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from PIL import Image

from dressform import Result
from dressform.app.order import Order
from dressform.app.photos import LONGEST_SHOWN, Photo, flattened, sendable

LONGEST = 24
"""Entries that are kept; the oldest go first."""

MOST_BYTES = 200 * 2**20
"""Memory of a visitor's entries: beyond it the oldest go, too. The newest always stays."""

_FILES = {"png": ("png", "image/png"), "jpeg": ("jpg", "image/jpeg"), "webp": ("webp", "image/webp")}


@dataclass(frozen=True)
class Entry:
    """What one order became. ``number`` counts the session's pictures from 1.

    To save memory the images of ``result`` are small; at full size they are in its ``encoded`` alone.
    """

    number: int
    order: Order
    result: Result

    @classmethod
    def of(cls, number: int, order: Order, result: Result) -> Entry:
        """The entry of ``result``."""
        shown = [_small(flattened(image)) for image in result.images]
        small = replace(result, images=shown, mask_used=_small(result.mask_used.convert("L")))
        return cls(number, order.packed(), small)

    @property
    def shown(self) -> list[Image.Image]:
        """Its pictures, small."""
        return self.result.images

    @property
    def sizes(self) -> dict[int, int]:
        """Bytes of each thing in memory, by its identity: entries share persons and garments."""
        photos = [self.order.person, *(worn.photo for worn in self.order.garments)]
        data = [*self.result.encoded, *(photo.data for photo in photos), *self.order.masks.values()]
        images = [*self.shown, self.result.mask_used, *(photo.shown for photo in photos)]
        sizes = {id(part): len(part) for part in data if isinstance(part, bytes)}
        return sizes | {id(image): image.width * image.height * len(image.getbands()) for image in images}

    @property
    def media(self) -> str:
        """The media type of its files."""
        return self._file[1]

    def file_name(self, i: int) -> str:
        """A name for its ``i``-th picture's file."""
        return f"dressform-{self.number}-seed-{self.result.seeds[i]}.{self._file[0]}"

    def photo(self, i: int) -> Photo:
        """Its ``i``-th picture, to be dressed further.

        Raises:
            InvalidRequest: if no server would take it.
        """
        return Photo.read(f"Picture {self.number}", sendable(self.result.encoded[i]))

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
        self.selected = Entry.of(self.made, order, result)
        self.entries = [*self.entries, self.selected][-LONGEST:]
        while len(self.entries) > 1 and self.size > MOST_BYTES:
            del self.entries[0]
        return self.selected

    @property
    def size(self) -> int:
        """Bytes of all entries in memory."""
        parts: dict[int, int] = {}
        for entry in self.entries:
            parts |= entry.sizes
        return sum(parts.values())

    def __iter__(self) -> Iterator[Entry]:
        """Newest first."""
        return reversed(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def _small(image: Image.Image) -> Image.Image:
    """A copy of ``image`` as the page shows it."""
    small = image.copy()
    small.thumbnail((LONGEST_SHOWN, LONGEST_SHOWN))
    return small
