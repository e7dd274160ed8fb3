"""The last part of the page: a request under way, its picture beside the original, and the history."""

from __future__ import annotations

import streamlit as st

from dressform import About, Client
from dressform.app import masks, presence
from dressform.app.comparison import comparison
from dressform.app.history import Entry
from dressform.app.inputs import THUMBNAIL, emphasis
from dressform.app.order import Order
from dressform.app.photos import data_url, encoded
from dressform.app.session import Session
from dressform.app.settings import preview_every

LOOK_SECONDS = 0.4
"""How often the page looks how far a request is."""

_MOST_COMMENT = 500


def send(session: Session, client: Client, about: About, order: Order) -> None:
    """Send ``order``; what is wrong with it is told."""
    steps = int(order.options.get("num_inference_steps") or about.num_inference_steps)
    with session.telling("run"):
        order.check()
        order = order.packed()
        session.start(order, order.sent(client, preview_every(steps)))


def show_last(session: Session, client: Client | None, about: About | None) -> None:
    """The request under way, and the picture that is looked at; without a server (None) as far as it is known here."""
    _show_run(session)
    if session.history.selected is not None:
        _show_entry(session, client, about, session.history.selected)


def _show_run(session: Session) -> None:
    """The request under way, or what went wrong with the last one."""
    if session.running is not None:
        _progress(session)
    elif "run" in session.problems:
        st.error(session.problems["run"])


@st.fragment(run_every=LOOK_SECONDS)
def _progress(session: Session) -> None:
    presence.stay(session)
    running = session.running
    if running is None or running.done:
        session.finish()
        st.rerun()
        return
    st.progress(running.share, running.sentence)
    if running.preview is not None:
        shape = session.person.size if session.order is None else session.order.person.size
        # Within the page: a file of Streamlit's is gone with the next preview, before a slow network has it.
        style = f"width: min(100%, {masks.canvas_size(shape)[0]}px); border-radius: .5rem"
        st.html(f'<img alt="Preview" style="{style}" src="{data_url(running.preview)}">')
        st.caption("Preview")
    if st.button("Cancel", key="cancel", icon=":material/stop_circle:", disabled=running.cancelled):
        running.cancel()
        st.rerun(scope="fragment")


def _show_entry(session: Session, client: Client | None, about: About | None, entry: Entry) -> None:
    """A picture beside its original, and what can be done with it."""
    i, shown = 0, entry.shown
    if len(shown) > 1:
        names = range(len(shown))
        i = st.segmented_control(
            "Picture", names, default=0, format_func=lambda n: str(n + 1), key=f"of-{entry.number}", required=True
        )
    comparison(entry.order.person.shown, shown[i], key=f"comparison-{entry.number}-{i}")
    st.caption(entry.line)
    for warning in entry.result.warnings:
        st.warning(warning)
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            "Download",
            entry.result.encoded[i],
            entry.file_name(i),
            entry.media,
            key=f"download-{entry.number}-{i}",
            on_click="ignore",
            icon=":material/download:",
        )
        idle = client is not None and about is not None and session.running is None
        again = st.button("Another seed", key="again", icon=":material/casino:", disabled=not idle)
        if again and client is not None and about is not None:
            send(session, client, about, entry.order.again())
            st.rerun()
        if st.button("Dress further", key="further", icon=":material/styler:", help="The picture becomes the person."):
            with session.telling("further"):
                session.choose_person(entry.photo(i))
            st.rerun()
    if "further" in session.problems:
        st.error(session.problems["further"])
    if client is not None and about is not None and about.feedback:
        _feedback(session, client, entry)
    with st.expander("What was repainted"):
        st.image(encoded(masks.overlay(entry.order.person.shown, entry.result.mask_used)), width=THUMBNAIL * 2)


def show_history(session: Session) -> None:
    """The session's pictures, to look at again."""
    if len(session.history) < 2:
        return
    st.subheader("History")
    with st.container(horizontal=True, gap="xsmall"):
        for entry in session.history:
            with st.container(width=THUMBNAIL, gap="xsmall"):
                st.image(encoded(entry.shown[0]), width=THUMBNAIL, alt=entry.order.title)
                kind = emphasis(entry is session.history.selected)
                if st.button(
                    f"Nº {entry.number}", key=f"show-{entry.number}", type=kind, width="stretch", help=entry.line
                ):
                    session.history.selected = entry
                    session.problems.pop("further", None)
                    st.rerun()
    st.caption("Kept for this visit alone, the latest of them: download what you want to keep.")


def _feedback(session: Session, client: Client, entry: Entry) -> None:
    """Thumbs for a picture, and after them words."""
    key, said = f"thumbs-{entry.number}", f"comment-{entry.number}"

    def record() -> None:
        thumbs, comment = st.session_state[key], (st.session_state.get(said) or "").strip()
        if thumbs is not None:
            with session.telling("feedback"):
                client.feedback(entry.result.request_id, "up" if thumbs else "down", comment or None)

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        thumbs = st.feedback("thumbs", key=key, on_change=record)
        if thumbs is not None:
            st.text_input(
                "Why?",
                key=said,
                max_chars=_MOST_COMMENT,
                placeholder="Thank you! Why? (optional)",
                label_visibility="collapsed",
                on_change=record,
            )
    if "feedback" in session.problems:
        st.error(session.problems["feedback"])
