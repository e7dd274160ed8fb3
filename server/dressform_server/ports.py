"""Ports: which are free, which are taken."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from dressform_server.errors import PortTaken, SettingsError


def chosen_ports(host: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """``wanted`` with each 0 replaced by a free port, all different.

    The ports are free when this returns; another program may still take one before Triton binds it.

    Raises:
        PortTaken: if a port other than 0 is in use (with the option that names another).
        SettingsError: if ``host`` is no address of this machine.
    """
    with ExitStack() as held:
        return {name: _bound(held, host, name, port) for name, port in wanted.items()}


def _bound(held: ExitStack, host: str, name: str, port: int) -> int:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise SettingsError(f"host must be an address of this machine, not {host!r}: {error.strerror}") from error
    listener = held.enter_context(socket.socket(family, kind, protocol))
    # As Triton does: a port whose last connections linger in TIME_WAIT is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(1)
    except PermissionError as error:
        raise PortTaken(f"{name} port {port} needs more rights: choose one above 1023 with --{name}-port") from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"host must be an address of this machine, not {host!r}: {error.strerror}") from error
        raise PortTaken(
            f"{name} port {port} on {host} is in use by another program: stop it, or choose another port with "
            f"--{name}-port (0 takes a free one)"
        ) from error
    return int(listener.getsockname()[1])
