"""The first part of the page: whom to dress, and in what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import streamlit as st

from dressform import About
from dressform.app import gallery, prompts
from dressform.app.order import Category, Worn
from dressform.app.photos import FILE_TYPES, Photo, encoded
from dressform.app.session import MOST_GARMENTS, Session, worn
from dressform_contract import MAX_ENCODED_BYTES

CATEGORIES: dict[Category, str] = {
    "upper": "Upper body",
    "lower": "Lower body",
    "overall": "Dress",
    "auto": "Automatic",
}
SOURCES = ("Samples", "Upload", "Camera")
THUMBNAIL = 80
"""Width of a small picture, in CSS pixels: four fit beside one another on a phone."""


def choose_person(session: Session) -> None:
    """A photo of a person: from the gallery, a file or the camera."""
    st.subheader("Person")
    source = _source(session, "person")
    if source == "Samples":
        sample = _sample_of(gallery.PEOPLE, [session.person])
        if sample is not None:
            session.choose_person(sample.photo)
            st.rerun()
    else:
        _taken(session, "person", source, several=False)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.image(encoded(session.person.shown), width=THUMBNAIL)
            st.caption(f"{session.person.name}, {session.person.size[0]} × {session.person.size[1]} pixels")
    _problem(session, "person")


def choose_garments(session: Session) -> None:
    """Photos of garments: from the gallery, files or the camera; one, or several one after another."""
    st.subheader("Garment")
    source = _source(session, "garment")
    several = st.toggle(
        "Several, one after another",
        key=session.recall("several"),
        help=f"Each garment goes on the picture of the one before; up to {MOST_GARMENTS}.",
    )
    if not several:
        session.garments = session.garments[-1:]
    if source == "Samples":
        sample = _sample_of(gallery.GARMENTS, [garment.photo for garment in session.garments])
        if sample is not None:
            with session.telling("garment"):
                session.choose_garment(worn(sample), several=several)
            st.rerun()
    else:
        _taken(session, "garment", source, several=several)
    _problem(session, "garment")
    for i, garment in enumerate(session.garments):
        _garment_row(session, i, garment)


def choose_words(session: Session, about: About | None) -> tuple[Category, str, str]:
    """What to paint, in words, with the helper: category, prompt, negative prompt."""
    st.subheader("Garment in words")
    known = [category for category in CATEGORIES if category != "auto" or about is None or about.parser]
    category = _category("It covers", known, known[0], session.recall("words-category", known[0], known))
    columns = st.columns(2)
    kinds = prompts.kinds(category)
    with columns[0]:
        key = session.recall(f"kind-{category}", kinds[0], kinds)
        st.selectbox("Garment", kinds, key=key, on_change=_helped, args=(category,))
        key = session.recall("colour", prompts.COLOURS[0])
        st.selectbox("Colour", prompts.COLOURS, key=key, on_change=_helped, args=(category,))
    with columns[1]:
        patterns = list(prompts.TEMPLATES)
        key = session.recall("pattern", patterns[1])
        pattern: Any = st.selectbox("Pattern", patterns, key=key, on_change=_helped, args=(category,))
        st.selectbox(
            "Second colour",
            prompts.COLOURS,
            key=session.recall("second", prompts.COLOURS[-1]),
            disabled=not prompts.needs_second(pattern),
            on_change=_helped,
            args=(category,),
        )
    session.recall("prompt")
    if "prompt" not in st.session_state or st.session_state.get("helped") != category:
        _helped(category)
    prompt = st.text_area("Prompt", key="prompt", height=68, help="Made by the fields above; write what you like.")
    negative = st.text_input("Not in the picture", key=session.recall("negative"), placeholder="optional")
    return category, prompt.strip(), negative.strip()


def _helped(category: str) -> None:
    """Put what the helper's fields say into the prompt."""
    state = st.session_state
    kind = state.get(f"kind-{category}") or prompts.kinds(category)[0]
    state["prompt"] = prompts.phrase(kind, state["pattern"], state["colour"], state["second"])
    state["helped"] = category


def emphasis(chosen: bool) -> Literal["primary", "secondary"]:
    """How a button looks that chooses something, or has chosen it."""
    return "primary" if chosen else "secondary"


def _source(session: Session, part: str) -> str:
    key = session.recall(f"{part}-source", SOURCES[0])
    chosen = st.segmented_control(f"{part} from", SOURCES, key=key, label_visibility="collapsed", required=True)
    return chosen or SOURCES[0]


def _sample_of(samples: Sequence[gallery.Sample], chosen: Sequence[Photo]) -> gallery.Sample | None:
    """The sample that was pressed now."""
    digests = {photo.digest for photo in chosen}
    pressed = None
    with st.container(horizontal=True, gap="xsmall"):
        for sample in samples:
            with st.container(width=THUMBNAIL, gap="xsmall"):
                st.image(str(sample.path), width=THUMBNAIL, alt=sample.caption)
                kind = emphasis(sample.photo.digest in digests)
                key = f"sample-{sample.kind}-{sample.seed}"
                if st.button(sample.name, key=key, help=sample.caption, type=kind, width="stretch"):
                    pressed = sample
    return pressed


def _taken(session: Session, part: str, source: str, *, several: bool) -> None:
    """The field for files or for the camera, which empties when something comes."""
    key = f"{part}-{source}-{session.uploads}"
    arguments = (session, part, key, several)
    if source == "Camera":
        st.camera_input(f"Photo of the {part}", key=key, on_change=_came, args=arguments)
        return
    st.file_uploader(
        f"Photo of the {part}",
        FILE_TYPES,
        accept_multiple_files=several,
        max_upload_size=MAX_ENCODED_BYTES // 2**20,
        key=key,
        on_change=_came,
        args=arguments,
    )


def _came(session: Session, part: str, key: str, several: bool) -> None:
    """Files, or a photo of the camera."""
    came = st.session_state[key]
    with session.telling(part):
        for file in came if isinstance(came, list) else [came] if came else []:
            photo = Photo.read(file.name, file.getvalue())
            if part == "person":
                session.choose_person(photo)
            else:
                category = session.garments[-1].category if session.garments else "upper"
                session.choose_garment(Worn(photo, category), several=several)
    session.uploads += 1


def _garment_row(session: Session, i: int, garment: Worn) -> None:
    """A chosen garment: its picture, its category, and a button to take it off the list."""
    several = len(session.garments) > 1
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.image(encoded(garment.photo.shown), width=56)
        label = f"{i + 1}. {garment.photo.name}" if several else garment.photo.name
        category = _category(label, list(CATEGORIES), garment.category, f"category-{i}-{garment.photo.digest}")
        if category != garment.category:
            session.garments[i] = replace(garment, category=category)
            st.rerun()
        if several and st.button("Remove", key=f"remove-{i}", icon=":material/close:"):
            session.remove_garment(i)
            st.rerun()


def _category(label: str, known: Sequence[Category], default: Category, key: str) -> Category:
    chosen: Any = st.selectbox(
        label,
        known,
        index=known.index(default),
        format_func=CATEGORIES.__getitem__,
        key=key,
        width=170,
        help="What it covers.",
    )
    return cast(Category, chosen)


def _problem(session: Session, part: str) -> None:
    if part in session.problems:
        st.error(session.problems[part])
