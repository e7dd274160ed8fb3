"""One embedded Triton: started, waited for, drained and stopped, with nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from dressform_server.container import docker_run
from dressform_server.drain import drain
from dressform_server.errors import StartFailed, UnsupportedPlatform
from dressform_server.health import address, answers_ready
from dressform_server.installation import Installation, backends
from dressform_server.journal import Echo, Journal
from dressform_server.lines import FORMATS, OURS
from dressform_server.ports import chosen_ports
from dressform_server.process import TritonProcess
from dressform_server.repository import Repository
from dressform_server.settings import Settings

Progress = Callable[[int, int], None]
"""Called with the models that are ready and all models."""

_EXPOSED = (
    "warning: {host} can be reached from other machines, and the embedded Triton (2.51) has known security holes "
    "that are fixed only in NVIDIA's containers, from 25.07 to 26.07. Keep it behind a firewall, or use the container."
)
_PORT_ATTEMPTS = 3
_POLL_SECONDS = 0.1


class Server:
    """Triton serving one exported repository, as a context manager.

    Takes the fields of `Settings` as arguments. ``echo`` gets the log lines a person should see (every line if
    ``verbose``)::

        with Server(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
            server.wait_ready(60)
            ...  # server.grpc_url

    ``start`` raises a `ServerError`; after ``stop`` there is no process, no shared memory and no temporary file of
    this server. Should this process be killed, Triton gets SIGTERM from the kernel.
    """

    def __init__(self, repository: Path, *, echo: Echo | None = None, verbose: bool = False, **options: Any) -> None:
        """A server of ``repository``, not started yet."""
        self.settings = Settings(Path(repository), **options)
        self._shape = FORMATS[self.settings.log_format]
        self._echo = echo
        self._verbose = verbose
        self._ports = self.settings.ports
        self._run: TritonProcess | None = None

    def __enter__(self) -> Server:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    @property
    def http_address(self) -> str:
        """Host and port of the HTTP endpoint."""
        return self._address("http")

    @property
    def http_url(self) -> str:
        """Address of the HTTP endpoint."""
        return f"http://{self.http_address}"

    @property
    def grpc_url(self) -> str:
        """Address of the gRPC endpoint."""
        return f"{'grpcs' if self.settings.tls_certificate else 'grpc'}://{self._address('grpc')}"

    @property
    def metrics_url(self) -> str:
        """Address of the Prometheus metrics."""
        return f"http://{self._address('metrics')}/metrics"

    @property
    def pid(self) -> int | None:
        """Process id of Triton, which is also its process group; None when it is not running."""
        return self._run.pid if self._run is not None and self._run.alive else None

    @property
    def models(self) -> tuple[int, int]:
        """How many models are loaded, and how many there are."""
        return (self._run.journal.loaded, len(self._run.repository.models)) if self._run is not None else (0, 0)

    def restart(self) -> None:
        """End Triton at once, with what it has in flight, and start it anew on the same ports.

        Raises:
            ServerError: as `start` does.
        """
        self.kill()
        if self._run is not None:
            self._run.wait()
        self._run = None
        self._start(self._ports)

    def start(self) -> None:
        """Check everything that can be checked, and start Triton. Returns before the models are loaded.

        Raises:
            ServerError: saying what is wrong.
        """
        if self._run is not None:
            raise StartFailed("this server was started already")
        self._start(self.settings.ports)

    def _say(self, line: str) -> None:
        if self._echo is not None:
            self._echo(self._shape(line, OURS))

    def _start(self, ports: dict[str, int]) -> None:
        settings = self.settings
        repository = Repository.read(settings.repository)
        instead = f"NVIDIA's container does:\n{docker_run(settings)}"
        backend = repository.backend(settings.engine, backends(), instead)
        try:
            installation = Installation.find(backend, tracing=settings.otlp_endpoint is not None)
        except UnsupportedPlatform as error:
            raise UnsupportedPlatform(f"{error}. The same repository on Docker:\n{docker_run(settings)}") from error
        if settings.exposed:
            self._say(_EXPOSED.format(host=settings.host))
        self._ports = chosen_ports(settings.host, ports)
        journal = Journal(settings.log, self._echo, self._verbose, self._shape)
        self._run = TritonProcess(settings, repository, installation, self._ports, journal)

    def wait_ready(self, timeout: float | None = None, progress: Progress | None = None) -> None:
        """Return when every model is ready.

        Raises:
            StartFailed: if Triton ends before (the message says which model failed, and why), or is not ready
                within ``timeout`` seconds. Either way the server is stopped.
        """
        deadline = time.monotonic() + timeout if timeout is not None else None
        attempts = 1
        while not self._answers_ready():
            if progress is not None:
                progress(*self.models)
            if self._run is None:
                raise StartFailed("the server is not started, or was stopped")
            if not self._run.alive:
                journal = self._run.journal
                self.stop()
                if journal.port_lost and 0 in self.settings.ports.values() and attempts < _PORT_ATTEMPTS:
                    attempts += 1
                    self.start()
                    continue
                raise StartFailed(f"Triton ended before it was ready:\n{journal.reason()}")
            if deadline is not None and time.monotonic() > deadline:
                ready, all_models = self.models
                self.stop()
                raise StartFailed(f"Triton was not ready after {timeout:g} s: {ready} of {all_models} models loaded")
            time.sleep(_POLL_SECONDS)
        if self._run is not None:
            self._run.ready = True
            self._run.journal.release()
        if progress is not None:
            progress(*self.models)

    def wait(self) -> int:
        """Wait until Triton ends by itself or is stopped from another thread; its exit status (negative: signal)."""
        run = self._run
        return (run.wait() if run is not None else None) or 0

    def stop(self) -> None:
        """Let requests in flight finish (``exit_timeout`` seconds), end Triton and whatever it started."""
        run = self._run
        if run is not None:
            deadline = time.monotonic() + self.settings.exit_timeout
            if run.ready and run.alive:
                for line in drain(run.repository.path, run.pid, self.settings.exit_timeout):
                    self._say(line)
            run.stop(max(0.0, deadline - time.monotonic()))
            self._run = None

    def kill(self) -> None:
        """End Triton at once; ``stop`` still cleans up."""
        if self._run is not None:
            self._run.kill()

    def _address(self, name: str) -> str:
        return address(self.settings.host, self._ports[name])

    def _answers_ready(self) -> bool:
        return answers_ready(self.http_address) and self.pid is not None
