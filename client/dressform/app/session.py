"""What belongs to one user of the page. It lives in Streamlit's session state, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from dressform import Cancelled, DressformError, Handle, InvalidRequest, Result
from dressform.app import gallery, masks
from dressform.app.history import History
from dressform.app.order import Category, Order, Worn
from dressform.app.photos import Photo
from dressform.app.running import Running

MOST_GARMENTS = 4
"""Garments of one outfit."""

MaskKey = tuple[Category, int]
"""Category, and by how many pixels the automatic mask is grown."""


@dataclass
class Session:
    """A user's pictures, corrections, request under way and history.

    Attributes:
        masks: masks of the person as corrected by hand; ``found`` are the server's.
        failures: sentences about masks that the server could not make; it is not asked again for them.
        grow: pixels by which automatic masks are grown.
        painted: corrections on the canvas, and the masks that they are painted on.
        canvas: counts the canvases, so that a new one starts empty; ``uploads`` those of the upload fields.
        fields: what the page's fields hold, by their keys; see `recall`.
        problems: sentences about what went wrong, by the part of the page where they are shown.
    """

    person: Photo = field(default_factory=lambda: gallery.PEOPLE[0].photo)
    garments: list[Worn] = field(default_factory=lambda: [worn(gallery.GARMENTS[0])])
    masks: dict[MaskKey, Image.Image] = field(default_factory=dict)
    found: dict[MaskKey, Image.Image] = field(default_factory=dict)
    failures: dict[MaskKey, str] = field(default_factory=dict)
    grow: int = 0
    painted: dict[MaskKey, tuple[Image.Image, NDArray[np.uint8]]] = field(default_factory=dict)
    canvas: int = 0
    uploads: int = 0
    order: Order | None = None
    running: Running | None = None
    history: History = field(default_factory=History)
    fields: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @classmethod
    def current(cls) -> Session:
        """The session of whoever looks at the page."""
        session: Session = st.session_state.setdefault("dressform", cls())
        return session

    def remember(self) -> None:
        """Note what the fields hold, at the start of a run: Streamlit forgets those that the run then leaves out."""
        self.fields.update({key: st.session_state[key] for key in self.fields if key in st.session_state})

    def recall(self, key: str, default: Any = None, choices: Container[Any] | None = None) -> str:
        """Put back what the field ``key`` held, else ``default``, before it is drawn; ``choices`` are what it may hold.

        Returns:
            ``key``.
        """
        value = self.fields.setdefault(key, default)
        if choices is not None and value not in choices:
            value = default
        if key not in st.session_state and value is not None:
            st.session_state[key] = value
        return key

    def choose_person(self, photo: Photo) -> None:
        """Another person: masks and corrections were of the one before."""
        self.person = photo
        self.problems.pop("person", None)
        self.restart_masks()

    def restart_masks(self) -> None:
        """Forget the masks and their corrections."""
        self.masks.clear()
        self.found.clear()
        self.failures.clear()
        self.painted.clear()
        self.canvas += 1

    def keep_corrections(self) -> None:
        """Make what was painted a part of the masks, and the canvases empty."""
        for key, (mask, strokes) in self.painted.items():
            self.masks[key] = masks.corrected(mask, strokes)
        self.painted.clear()
        self.canvas += 1

    def choose_garment(self, garment: Worn, *, several: bool) -> None:
        """Another garment, after those chosen already or instead of them.

        Raises:
            InvalidRequest: if the outfit is full.
        """
        if several and len(self.garments) >= MOST_GARMENTS:
            raise InvalidRequest(f"an outfit has up to {MOST_GARMENTS} garments: remove one first")
        self.garments = [*self.garments, garment] if several else [garment]
        self.problems.pop("garment", None)

    def remove_garment(self, i: int) -> None:
        """Take a garment off the outfit."""
        del self.garments[i]
        self.problems.pop("garment", None)

    def start(self, order: Order, handle: Handle[Result]) -> None:
        """A request went out."""
        self.problems.pop("run", None)
        self.order, self.running = order, Running(handle, order.passes)

    def finish(self) -> None:
        """The request is over: its picture goes to the history, its error is told."""
        running, order, self.running = self.running, self.order, None
        if running is None or order is None:
            return
        if running.result is not None:
            self.history.add(order, running.result)
        elif not (running.cancelled and isinstance(running.error, Cancelled)) and running.error is not None:
            self.problems["run"] = sentence(running.error)

    def abandon(self) -> None:
        """Nobody is there any more: cancel the request under way."""
        running = self.running
        if running is not None and not running.done:
            self.problems["run"] = "The page was closed or out of reach for a while, so the request was cancelled."
            running.cancel()

    @contextmanager
    def telling(self, part: str) -> Iterator[None]:
        """What goes wrong inside is told in this part of the page, until it goes right."""
        try:
            yield
        except DressformError as error:
            self.problems[part] = sentence(error)
        else:
            self.problems.pop(part, None)


def worn(sample: gallery.Sample) -> Worn:
    """A garment of the gallery."""
    return Worn(sample.photo, "auto" if sample.kind == "person" else sample.kind)


def sentence(error: DressformError) -> str:
    """What happened and what to do, for Markdown."""
    text = re.sub(r"([*_$~\[\]])", r"\\\1", str(error))
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+ ", text) else text  # no file's name or address
