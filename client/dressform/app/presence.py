"""Whether a visitor is still there: nobody should wait behind a picture that nobody will see.

Streamlit empties a session's own caches when its connection ends, at once when a tab is closed or loaded anew, and
also when a phone sleeps or changes networks. Such a visitor may be back within moments, to the same session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dressform.app.session import Session

AWAY_SECONDS = 15.0
"""How long a visitor may be gone before the request under way is cancelled."""


class Visit:
    """The connection of a visitor to ``session``; ``back`` says whether there is one now."""

    def __init__(self, session: Session, back: Callable[[], bool]) -> None:
        self._session = session
        self._back = back

    def left(self) -> None:
        """The connection ended: look a while later."""
        timer = threading.Timer(AWAY_SECONDS, self._look)
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        if not self._back():
            self._session.abandon()


def stay(session: Session) -> None:
    """Have the request under way cancelled when the visitor is gone. Every run of the page's script says so."""
    context = get_script_run_ctx()
    if context is not None and runtime.exists():
        _visit(session, context.session_id)


@st.cache_resource(scope="session", on_release=Visit.left, show_spinner=False)
def _visit(_session: Session, name: str) -> Visit:
    return Visit(_session, lambda: runtime.get_instance().is_active_session(name))
