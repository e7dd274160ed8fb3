"""The mask: shown over the person before anything is sent, and corrected with a brush or boxes."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st
from PIL import Image
from streamlit_drawable_canvas import st_canvas

from dressform import About, Client, DressformError
from dressform.app import masks
from dressform.app.inputs import CATEGORIES
from dressform.app.order import Category
from dressform.app.photos import encoded
from dressform.app.session import MaskKey, Session, sentence
from dressform_contract import PARAMETERS

MASK_SECONDS = 60.0
"""How long to wait for an automatic mask."""

_ASK_AGAIN = "“Start the mask over” asks the server again."
_READABLE: tuple[Category, ...] = ("upper", "lower", "overall")
_READ = (
    "Automatic: the server reads from the garment's picture what it covers, once that is sent, and repaints one of "
    "these masks. Choose what the garment covers to settle which, and to correct it by hand."
)
_READ_LATER = " For each garment but the first it is found anew, on the picture of the one before."

_GROW = PARAMETERS["mask_grow"]


def edit_masks(
    session: Session, client: Client, about: About, categories: Iterable[Category], *, read: bool
) -> dict[Category, Image.Image]:
    """Shows the mask of each category on the person, and returns it as it will be sent.

    ``read``: the category of a garment is read from its picture, after it is sent. No mask is sent for it, so those
    that the server may choose from are shown, without the corrections.
    """
    wanted = list(dict.fromkeys(categories))
    st.subheader("What is repainted")
    editing = st.toggle(
        "Correct by hand", key=session.recall("editing"), on_change=session.keep_corrections, disabled=not wanted
    )
    if editing and wanted:
        _tools(session, about)
    made: dict[Category, Image.Image] = {}
    names = [CATEGORIES[category] for category in wanted] + [CATEGORIES["auto"]] * read
    tabs = st.tabs(names) if len(names) > 1 else [st.container()]
    for tab, category in zip(tabs, wanted, strict=False):
        with tab:
            key = (category, session.grow)
            mask = _mask(session, client, about, key)
            made[category] = _canvas(session, key, mask) if editing else _shown(session, mask)
    if read:
        with tabs[-1]:
            _choices(session, client)
    if st.button("Start the mask over", key="restart", icon=":material/undo:", type="tertiary"):
        session.restart_masks()
        st.rerun()
    return made


def _choices(session: Session, client: Client) -> None:
    """The masks of which the server takes one when it has read the garment's picture."""
    st.caption(_READ + (_READ_LATER if len(session.garments) > 1 else ""))
    for tab, category in zip(st.tabs([CATEGORIES[category] for category in _READABLE]), _READABLE, strict=True):
        with tab:
            key = (category, 0)
            found = _asked(session, client, key)
            if found is None:
                st.error(f"{session.failures[key]} {_ASK_AGAIN}")
            else:
                _shown(session, found, f"If the garment is read as “{CATEGORIES[category]}”, ")


def _mask(session: Session, client: Client, about: About, key: MaskKey) -> Image.Image:
    """The mask as it was corrected; else the server's; else an empty one, to be painted by hand."""
    if key in session.masks:
        return session.masks[key]
    if not about.parser:
        st.caption("This server finds no masks by itself: switch on the correction, and paint what the garment covers.")
        return masks.empty(session.person.size)
    found = _asked(session, client, key)
    if found is None:
        st.error(f"{session.failures[key]} Or switch on the correction and paint the mask by hand. {_ASK_AGAIN}")
        return masks.empty(session.person.size)
    return found


def _asked(session: Session, client: Client, key: MaskKey) -> Image.Image | None:
    """The server's mask, asked for once; None where it fails, and ``session.failures`` says why."""
    category, grow = key
    if key in session.found or key in session.failures:
        return session.found.get(key)
    try:
        with st.spinner("Finding the mask…"):
            found = client.mask(session.person.data, category, mask_grow=grow or None, timeout=MASK_SECONDS)
    except DressformError as error:
        session.failures[key] = sentence(error)
        return None
    session.found[key] = found.mask_used
    return found.mask_used


def _shown(session: Session, mask: Image.Image, condition: str = "") -> Image.Image:
    st.image(
        encoded(masks.overlay(session.person.shown, mask)),
        width=masks.canvas_size(session.person.size)[0],
        alt="the person with the mask tinted",
    )
    st.caption(f"{condition}{masks.share(mask):.0%} of the picture is repainted (tinted).")
    return mask


def _tools(session: Session, about: About) -> None:
    with st.container(horizontal=True, gap="small"):
        st.segmented_control("Paint", ("Add", "Remove"), default="Add", key="paint", required=True)
        if not _on_phone():
            st.segmented_control("With", ("Brush", "Box"), default="Brush", key="tool", required=True)
        st.slider("Brush size", 4, 60, 24, key="brush", width=130)
        if about.parser:
            session.grow = st.slider(
                "Grow or shrink",
                int(_GROW.minimum),
                int(_GROW.maximum),
                session.grow,
                key="grow",
                width=130,
                help="The automatic mask, in pixels of the photo. Each setting has its own corrections.",
            )


def _on_phone() -> bool:
    """Whether a finger paints: the canvas takes boxes from a mouse alone (streamlit-drawable-canvas issue 105)."""
    return "Mobi" in (st.context.headers.get("User-Agent") or "")


def _canvas(session: Session, key: MaskKey, mask: Image.Image) -> Image.Image:
    """The canvas over the person; the mask with what is painted on it."""
    width, height = masks.canvas_size(session.person.size)
    state = st.session_state
    colour = masks.paint(masks.ADD if state["paint"] == "Add" else masks.REMOVE)
    box = state.get("tool") == "Box"
    category, grow = key
    drawn = st_canvas(
        background_image=encoded(masks.overlay(session.person.shown, mask)),
        width=width,
        height=height,
        drawing_mode="rect" if box else "freedraw",
        stroke_width=1 if box else state["brush"],
        stroke_color=colour,
        fill_color=colour,
        return_image_data=True,
        key=f"canvas-{session.person.digest}-{category}-{grow}-{session.canvas}",
    ).image_data
    st.caption("Paint on the picture. Pink is repainted, blue is not; switch the correction off to see the result.")
    if drawn is None:
        return mask
    session.painted[key] = mask, drawn
    return masks.corrected(mask, drawn)
