"""Where the server is, and the connection to it, which all users of the page share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dressform import About, Client, ServerUnavailable
from dressform.client import DEFAULT_URL

LOOK_SECONDS = 10
"""How long the page believes what the server said of itself."""


def address(arguments: Sequence[str], environment: Mapping[str, str], secrets: Mapping[str, Any]) -> str:
    """The server's address: ``--server`` (after ``--``), else DRESSFORM_URL, else the secret ``server``."""
    parser = argparse.ArgumentParser(prog="streamlit run page.py --", add_help=False, allow_abbrev=False)
    parser.add_argument("--server")
    flag: str | None = parser.parse_known_args(list(arguments))[0].server
    return flag or environment.get("DRESSFORM_URL") or str(secrets.get("server") or DEFAULT_URL)


def headers(secrets: Mapping[str, Any]) -> dict[str, str]:
    """The headers of every call: the secret ``headers``, such as an authorization."""
    return {str(name): str(value) for name, value in dict(secrets.get("headers") or {}).items()}


@st.cache_resource(show_spinner=False)
def connected(url: str, sent: Mapping[str, str]) -> Client:
    """The client of the server at ``url``; it serves any number of threads, so all users share it.

    Raises:
        InvalidRequest: if ``url`` is no address.
    """
    return Client(url, headers=sent)


@st.cache_data(ttl=LOOK_SECONDS, show_spinner=False)
def about(_client: Client, url: str) -> About:  # noqa: ARG001 - url is the cache's key
    """What the server at ``url`` can do.

    Raises:
        DressformError: if it cannot be reached, or is not ready. It is then asked again at the next look.
    """
    health = _client.health()
    if not health:
        raise ServerUnavailable(health.reason)
    return _client.about()
