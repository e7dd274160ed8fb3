"""NVIDIA's own Triton, in its container: ``python3 -m dressform_server.native REPOSITORY`` becomes ``tritonserver``.

The entry point of ``docker/Dockerfile.gpu``. Options mean what they mean to ``dressform serve``, and Triton's own
backends do the work. The process is replaced, so that nothing stands between Triton and the container's supervisor.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dressform_server.errors import InstallationError, ServerError
from dressform_server.flags import common, variables
from dressform_server.launcher import add_shared_arguments, shared_options
from dressform_server.ports import chosen_ports
from dressform_server.repository import Repository
from dressform_server.settings import Settings

TRITON = Path("/opt/tritonserver")
"""Where NVIDIA's container has its Triton."""


def command(settings: Settings, triton: Path) -> list[str]:
    """The program and its arguments.

    Raises:
        ServerError: if there is no such Triton, no exported repository, none for an engine that this Triton has, or
            a port is taken.
    """
    binary = triton / "bin" / "tritonserver"
    if not binary.is_file():
        raise InstallationError(f"{binary} is missing: this is for NVIDIA's container; elsewhere: dressform serve")
    repository = Repository.read(settings.repository)
    backends = frozenset(folder.name for folder in (triton / "backends").iterdir())
    repository.backend(settings.engine, backends, "Export for another engine (dressform-export --engine).")
    ports = chosen_ports(settings.host, settings.ports)
    return [str(binary), *common(settings, repository.path, ports), *settings.triton_options]


def main(arguments: Sequence[str] | None = None) -> int:
    """Become Triton; the exit status where that fails."""
    parser = argparse.ArgumentParser(prog="python3 -m dressform_server.native", description=__doc__)
    add_shared_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        settings = Settings(options.repository, **shared_options(options))
        words = command(settings, TRITON)
        os.execve(words[0], words, os.environ | variables(settings))
    except (ServerError, OSError) as error:
        print(f"dressform: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
