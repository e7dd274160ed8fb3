"""Dressform's server: NVIDIA Triton without a container.

`Server` starts the Triton inside the nvidia-pytriton wheel on an exported model repository; ``dressform serve`` is the
same on the command line. ``backends/`` holds Triton backends written in Python.
"""

from dressform_server.errors import (
    InstallationError,
    PortTaken,
    RepositoryError,
    ServerError,
    SettingsError,
    StartFailed,
    UnsupportedPlatform,
)
from dressform_server.server import Server
from dressform_server.settings import Settings

__all__ = [
    "InstallationError",
    "PortTaken",
    "RepositoryError",
    "Server",
    "ServerError",
    "Settings",
    "SettingsError",
    "StartFailed",
    "UnsupportedPlatform",
]
