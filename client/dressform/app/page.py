"""The page itself: ``streamlit run page.py``, or ``dressform app``."""

from __future__ import annotations

import os
import sys

import streamlit as st

from dressform import About, Client, DressformError
from dressform.app import connection, editor, gallery, inputs, presence, results, settings
from dressform.app.order import Category, Order
from dressform.app.session import Session, sentence
from dressform_contract import Task

TASKS: dict[Task, str] = {"tryon": "A garment's picture", "inpaint": "Words"}

_WHERE = "where the model takes any"
_STYLE = "<style>.stMainBlockContainer { padding-top: 2.5rem; padding-bottom: 3rem; }</style>"


def main(client: Client | None = None) -> None:
    """Draws the page; ``client`` is used instead of one for the address."""
    st.set_page_config("Dressform", str(gallery.GARMENTS[0].path), layout="wide")
    st.html(_STYLE)
    st.title("Dressform", anchor=False)
    session = Session.current()
    presence.stay(session)
    session.remember()
    try:
        client = client or _connected()
        about = connection.about(client, client.url)
    except DressformError as error:
        st.error(sentence(error))
        if st.button("Try again", key="retry"):
            connection.about.clear()
            st.rerun()
        session.keep_corrections()  # the canvas is not drawn now
        results.show_last(session, None, None)
        results.show_history(session)
        return
    _fitting_room(session, client, about)


def _fitting_room(session: Session, client: Client, about: About) -> None:
    task = _task(session, about)
    left, right = st.columns(2, gap="large")
    with left:
        inputs.choose_person(session)
    prompt, negative = "", ""
    category: Category = "auto"
    with right:
        if task == "inpaint":
            category, prompt, negative = inputs.choose_words(session, about)
            covered = [category]  # auto is what the person wears: that mask is shown and sent
        else:
            inputs.choose_garments(session)
            covered = [worn.category for worn in session.garments]
    read = task == "tryon" and about.parser and "auto" in covered
    left, right = st.columns(2, gap="large")
    with left:
        wanted = [name for name in covered if not (read and name == "auto")]
        made = editor.edit_masks(session, client, about, wanted, read=read)
    with right:
        st.subheader("Result")
        with st.expander("Settings"):
            if task == "tryon":
                prompt = st.text_input("Words that help", key=session.recall("words"), placeholder=_WHERE).strip()
            options = settings.asked(session, task, about)
        garments = tuple(session.garments) if task == "tryon" else ()
        order = Order(session.person, task, garments, made, category, prompt, negative, options)
        label = "Try it on" if task == "tryon" else "Paint it"
        if st.button(label, key="run", type="primary", width="stretch", disabled=session.running is not None):
            results.send(session, client, about, order)
            st.rerun()
        results.show_last(session, client, about)
    results.show_history(session)


def _task(session: Session, about: About) -> Task:
    """Try-on or inpainting, as far as the server can."""
    if not about.tryon:
        st.caption("This server's model paints by words alone: it never learned to read a garment's picture.")
        return "inpaint"
    key = session.recall("task", "tryon")
    chosen = st.segmented_control("Dress in", list(TASKS), format_func=TASKS.__getitem__, key=key, required=True)
    return chosen or "tryon"


def _connected() -> Client:
    """The client for the configured address."""
    secrets = connection.read_secrets()
    url = connection.address(sys.argv[1:], os.environ, secrets)
    return connection.connected(url, connection.headers(secrets), connection.tls(secrets))


if __name__ == "__main__":
    main()
