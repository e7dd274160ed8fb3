"""Why the server did not start, as one tree.

ServerError
├── UnsupportedPlatform   this machine cannot run the pip Triton; the message carries the ``docker run`` line
├── InstallationError     the machine could, but a part is missing (Python without a shared library, a package)
├── RepositoryError       the folder is no exported repository, or one for another server
├── PortTaken             another program listens there
├── StartFailed           Triton ended, or was not ready in time; the message carries its meaningful log lines
└── SettingsError         an option is out of range
"""

from __future__ import annotations


class ServerError(Exception):
    """The embedded server cannot run. The message says why and what to do."""


class UnsupportedPlatform(ServerError):
    """The pip Triton exists for Linux on x86_64 alone, and is not installed here."""


class InstallationError(ServerError):
    """A part that the embedded server needs is missing."""


class RepositoryError(ServerError):
    """The model repository is missing, not exported by ``dressform-export``, or exported for another server."""


class PortTaken(ServerError):
    """A port is in use."""


class StartFailed(ServerError):
    """Triton ended before it was ready, or was not ready in time."""


class SettingsError(ServerError, ValueError):
    """An option of the server is out of range."""
