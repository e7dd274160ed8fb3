"""NVIDIA's own Triton, in its container: ``python3 -m dressform_server.native REPOSITORY`` runs ``tritonserver``.

The entry point of ``docker/Dockerfile.gpu``. Options mean what they mean to ``dressform serve``, and Triton's own
backends do the work. At SIGTERM it finishes what is in flight; where a stage died or hangs it ends with status 1, for
what runs the container to start it anew.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dressform_server.drain import drain
from dressform_server.errors import InstallationError, ServerError
from dressform_server.flags import common, patience, variables
from dressform_server.health import address, answers_ready
from dressform_server.journal import Echo, Journal
from dressform_server.launcher import add_shared_arguments, shared_options
from dressform_server.lines import FORMATS, OURS
from dressform_server.ports import chosen_ports
from dressform_server.process import UNLOAD_SECONDS
from dressform_server.repository import Repository
from dressform_server.settings import Settings
from dressform_server.shared_memory import Segments
from dressform_server.supervision import Watch

TRITON = Path("/opt/tritonserver")
"""Where NVIDIA's container has its Triton."""
_LOOK_SECONDS = 0.2


def command(settings: Settings, ports: Mapping[str, int], triton: Path, segments: Segments) -> list[str]:
    """The program and its arguments.

    Raises:
        ServerError: if there is no such Triton, no exported repository, or none for an engine that this Triton has.
    """
    binary = triton / "bin" / "tritonserver"
    if not binary.is_file():
        raise InstallationError(f"{binary} is missing: this is for NVIDIA's container; elsewhere: dressform serve")
    repository = Repository.read(settings.repository)
    backends = frozenset(folder.name for folder in (triton / "backends").iterdir())
    repository.backend(settings.engine, backends, "Export for another engine (dressform-export --engine).")
    ours = [*common(settings, repository.path, ports), *segments.options(["python"]), *patience(["python"])]
    return [str(binary), *ours, *settings.triton_options]


def attend(words: Sequence[str], settings: Settings, http_address: str, segments: Segments, say: Echo) -> int:
    """Run Triton, the command ``words``, until it ends or is to; the exit status. ``say`` gets a sentence of ours.

    Raises:
        OSError: if it cannot be run.
    """
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda came, _: asked.append(came))
    journal = Journal(None, _write, verbose=True, shape=FORMATS[settings.log_format])
    triton = subprocess.Popen(
        words,
        env=os.environ | variables(settings),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with triton:
        assert triton.stdout is not None
        journal.follow(triton.stdout)
        try:
            watch = None
            while triton.poll() is None and not asked:
                if watch is None and answers_ready(http_address):
                    watch = Watch(settings.repository, triton.pid, http_address)
                if watch is not None and (wrong := watch.verdict()) is not None:
                    say(wrong)
                    return 1
                time.sleep(_LOOK_SECONDS)
            if triton.returncode is not None:
                return triton.returncode if triton.returncode >= 0 else 128 - triton.returncode
            deadline = time.monotonic() + settings.exit_timeout
            if watch is not None:
                watch.close()
                for line in drain(settings.repository, triton.pid, settings.exit_timeout):
                    say(line)
            triton.terminate()
            with suppress(subprocess.TimeoutExpired):
                triton.wait(max(0.0, deadline - time.monotonic()) + UNLOAD_SECONDS)
            return 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(triton.pid, signal.SIGKILL)
            journal.finish()
            segments.clear(triton.pid)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m dressform_server.native", description=__doc__)
    add_shared_arguments(parser)
    options = parser.parse_args(arguments)
    shape = FORMATS[options.log_format]

    def say(sentence: str) -> None:
        _write(shape(f"dressform: {sentence}", OURS))

    try:
        settings = Settings(options.repository, **shared_options(options))
        ports = chosen_ports(settings.host, settings.ports)
        segments = Segments()
        words = command(settings, ports, TRITON, segments)
        return attend(words, settings, address(settings.host, ports["http"]), segments, say)
    except (ServerError, OSError) as error:
        say(str(error))
        return 1


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
