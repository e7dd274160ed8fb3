"""Where the server is, and the connection to it, which all users of the page share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from dressform import TLS, About, Client, InvalidRequest, ServerUnavailable
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
    """The headers of every call: the secret ``headers``, such as an authorization.

    Raises:
        InvalidRequest: if it is no table.
    """
    table = secrets.get("headers") or {}
    if not isinstance(table, Mapping):
        raise InvalidRequest("the page's secret headers must be a table: [headers], and a line for each")
    return {str(name): str(value) for name, value in table.items()}


def tls(secrets: Mapping[str, Any]) -> TLS:
    """The certificates for ``grpcs://`` and ``https://``: the secrets ``ca_file``, ``certificate_file``, ``key_file``.

    Raises:
        InvalidRequest: if one cannot be read, or there is a key without a certificate.
    """
    files = (secrets.get(name) for name in ("ca_file", "certificate_file", "key_file"))
    return TLS(*(str(file) if file else None for file in files))


def read_secrets() -> Mapping[str, Any]:
    """Streamlit's secrets; none where there is no file of them.

    Raises:
        InvalidRequest: if there is one, and it cannot be read.
    """
    try:
        return st.secrets.to_dict()
    except (StreamlitSecretNotFoundError, OSError, UnicodeDecodeError) as error:
        found = [file for file in st.get_option("secrets.files") if Path(file).exists()]
        if not found:
            return {}
        raise InvalidRequest(f"the page's secrets cannot be read ({error}): mend {', '.join(found)}") from error


@st.cache_resource(show_spinner=False)
def connected(url: str, sent: Mapping[str, str], certificates: TLS) -> Client:
    """The client of the server at ``url``; it serves any number of threads, so all users share it.

    Raises:
        InvalidRequest: if ``url`` is no address.
    """
    return Client(url, headers=sent, tls=certificates)


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
