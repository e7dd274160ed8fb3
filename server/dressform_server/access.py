"""Who may administer a server: Triton's shared memory, tracing and logging ask for a key.

So does the list of models (`Client.models`), where there is a key. That nobody loads or unloads one is the mode of
the server.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from dressform_contract import ADMIN_HEADER
from dressform_server.errors import SettingsError

ADMINISTRATION = ("shared-memory", "trace", "logging")
"""Triton's groups of calls that change a server or read what is not the caller's. No call of our client is in them."""
LIST = "model-repository"
"""The group with the list of models."""
_LEAST = 16


def read_key(file: Path) -> str:
    """The key in ``file``: one line of printable ASCII without spaces.

    Raises:
        SettingsError: if the file cannot be read or has no such line. The key itself is never named.
    """
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"key file: {str(file)!r} cannot be read: {type(error).__name__}") from error
    if len(key) < _LEAST or not all("!" <= letter <= "~" for letter in key):
        raise SettingsError(f"key file: {str(file)!r} must have one line of {_LEAST} or more letters, digits or signs")
    return key


def restrictions(admin_key: str | None) -> list[str]:
    """Triton's options that ask for the key on both protocols; None: a random one that nobody learns."""
    groups = (*ADMINISTRATION, LIST) if admin_key else ADMINISTRATION
    rule = f"{','.join(groups)}:{ADMIN_HEADER}={admin_key or secrets.token_urlsafe(32)}"
    return [f"--http-restricted-api={rule}", f"--grpc-restricted-protocol={rule}"]
