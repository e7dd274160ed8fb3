"""The command ``dressform serve REPOSITORY``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

from dressform_server.access import read_key
from dressform_server.errors import ServerError
from dressform_server.lines import FORMATS, OURS, Shape
from dressform_server.server import Server
from dressform_server.supervision import Patience, Watch, ended_by_itself, fault

_LOOK_SECONDS = 0.2  # how often to look for a signal and for the end of Triton
_SAME_SIGNAL_SECONDS = 1.0


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that mean the same for the embedded Triton and for NVIDIA's (`dressform_server.native`)."""
    parser.add_argument("repository", type=Path, metavar="REPO", help="model repository that dressform-export wrote")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(f"--{name}-port", type=int, default=port, metavar="N", help=f"{port}; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--engine", metavar="NAME", help="one that REPO was exported for (default: the first of them)")
    parser.add_argument(
        "--audit-log", type=Path, metavar="F", help="append each request's story and people's feedback to F, in JSON"
    )
    parser.add_argument(
        "--audit-log-megabytes", type=int, default=100, metavar="N", help="rename F when it is so large (100; 0: never)"
    )
    parser.add_argument(
        "--otlp-endpoint", metavar="URL", help="send traces to this OpenTelemetry receiver (OTLP, HTTP)"
    )
    parser.add_argument(
        "--trace-ratio", type=float, default=1.0, metavar="R", help="share of requests traced, 0 to 1 (1)"
    )
    parser.add_argument(
        "--exit-timeout", type=int, default=30, metavar="S", help="seconds for requests in flight at a stop (30)"
    )
    parser.add_argument(
        "--longest-request", type=int, metavar="S", help="refuse or drop what takes more than S seconds (default: none)"
    )
    parser.add_argument(
        "--admin-key-file", type=Path, metavar="F", help="key for Triton's administration (default: refused to all)"
    )
    parser.add_argument("--tls-certificate", type=Path, metavar="F", help="encrypt gRPC: the certificate, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="F", help="the certificate's key")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="F", help="take only gRPC clients with a certificate that F signed"
    )
    parser.add_argument(
        "--log-format", choices=list(FORMATS), default="text", help="json: an object on each line (default: text)"
    )
    parser.add_argument("--triton-option", action="append", default=[], metavar="OPT", help="passed on to Triton")


def shared_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Settings` in what `add_shared_arguments` parsed, but the repository.

    Raises:
        SettingsError: if a file of a key cannot be used.
    """
    own = ("http_port", "grpc_port", "metrics_port", "host", "engine", "exit_timeout", "longest_request", "log_format")
    told = ("audit_log", "audit_log_megabytes", "otlp_endpoint", "trace_ratio")
    tls = ("tls_certificate", "tls_key", "tls_client_ca")
    return {name: getattr(arguments, name) for name in own + told + tls} | {
        "admin_key": read_key(arguments.admin_key_file) if arguments.admin_key_file is not None else None,
        "triton_options": tuple(arguments.triton_option),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve`` to ``parser``."""
    add_shared_arguments(parser)
    parser.add_argument("--log-file", type=Path, metavar="F", help="append every line of Triton's log to F")
    parser.add_argument(
        "--no-supervise",
        dest="supervise",
        action="store_false",
        help="end where the server died or hangs, instead of starting it anew",
    )
    parser.add_argument("--ready-timeout", type=float, metavar="S", help="give up when not ready after S seconds")
    parser.add_argument("--onnx-threads", type=int, metavar="N", help="threads of one graph (every usable core)")
    parser.add_argument("--verbose", action="store_true", help="show Triton's whole log, not its warnings alone")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; the exit status of the command."""
    voice = _Voice(sys.stderr, FORMATS[arguments.log_format])
    try:
        server = Server(
            arguments.repository,
            log=arguments.log_file.resolve() if arguments.log_file is not None else None,
            onnx_threads=arguments.onnx_threads,
            **shared_options(arguments),
            echo=voice.write,
            verbose=arguments.verbose,
        )
        return _serve(server, voice, arguments.ready_timeout, arguments.supervise)
    except ServerError as error:
        voice.say(f"dressform serve: {error}")
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m dressform_server``."""
    parser = argparse.ArgumentParser(prog="dressform serve", description="Serve an exported pipeline with Triton.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _until_fault(server: Server, signals: _Signals) -> str:
    """Wait for what ends the server of itself.

    Raises:
        _Asked: if a signal came before.
    """
    pid = server.pid
    if pid is None:
        return ended_by_itself(server)
    with closing(Watch(server.settings.repository, pid, server.http_address)) as watch:
        while (found := fault(server, watch)) is None:
            _sleep(_LOOK_SECONDS, signals)
    return found


def _run(server: Server, voice: _Voice, patience: Patience, signals: _Signals, ready_timeout: float | None) -> str:
    """One run of a server that was started, until what ends it of itself.

    Raises:
        _Asked: if a signal came before.
        StartFailed: if it does not become ready.
    """
    progress = _Progress(voice)

    def report(ready: int, models: int) -> None:
        if signals.came:
            raise _Asked
        progress(ready, models)

    server.wait_ready(ready_timeout, report)
    patience.ready()
    voice.say(f"ready: {server.http_url}  {server.grpc_url}  {server.metrics_url}")
    return _until_fault(server, signals)


def _sleep(seconds: float, signals: _Signals) -> None:
    end = time.monotonic() + seconds
    while not signals.came and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
    if signals.came:
        raise _Asked


def _serve(server: Server, voice: _Voice, ready_timeout: float | None, supervise: bool) -> int:
    with _Signals(server) as signals, server:
        patience = Patience()
        try:
            fault = _run(server, voice, patience, signals, ready_timeout)
            while (pause := patience.pause() if supervise else None) is not None:
                voice.say(f"dressform serve: {fault}; it is started anew" + (f" in {pause:g} s" if pause else ""))
                server.kill()
                _sleep(pause, signals)
                try:
                    server.restart()
                    fault = _run(server, voice, patience, signals, ready_timeout)
                except ServerError as error:  # it came up once: what is wrong may pass
                    fault = str(error)
            voice.say(f"dressform serve: {fault}")
            server.kill()  # its requests cannot end any more: nothing to wait for
            return 1
        except _Asked:
            pass
        voice.say(f"stopping: requests in flight have {server.settings.exit_timeout} s (another signal ends them)")
    voice.say("stopped")
    return 0


class _Asked(Exception):
    """A signal asked the server to stop."""


class _Signals:
    """While open, the first SIGINT or SIGTERM is noted in ``came``, a later one kills the server.

    Its handler takes no lock that the interrupted code may hold (as ``threading.Event.set`` would).
    """

    def __init__(self, server: Server) -> None:
        """Nothing came yet."""
        self.came = False
        self._server = server
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        """Take over the two signals."""
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, *_: object) -> None:
        now = time.monotonic()
        # timeout(1) and some supervisors send the same signal twice at once.
        if self.came and now - self._first > _SAME_SIGNAL_SECONDS:
            self._server.kill()
        elif not self.came:
            self.came, self._first = True, now


class _Progress:
    """``loading models 3/9``: one line that changes on a terminal, a line for each change elsewhere."""

    def __init__(self, voice: _Voice) -> None:
        self._voice = voice
        self._shown = ""
        self._since = time.monotonic()

    def __call__(self, ready: int, models: int) -> None:
        seconds = time.monotonic() - self._since
        text = f"loading models {ready}/{models}"
        if self._voice.moving:
            end = "\n" if ready == models else ""
            self._voice.stream.write(f"\r\x1b[K{text} ({seconds:.0f} s){end}")
            self._voice.stream.flush()
        elif text != self._shown:
            self._voice.say(f"{text} ({seconds:.1f} s)")
        self._shown = text


class _Voice:
    """What the launcher says, on ``stream``, as ``shape`` has it."""

    def __init__(self, stream: TextIO, shape: Shape) -> None:
        self.moving = stream.isatty() and shape is FORMATS["text"]
        self.stream = stream
        self._shape = shape

    def say(self, sentence: str) -> None:
        """A line of its own."""
        self.write(self._shape(sentence, OURS))

    def write(self, line: str) -> None:
        """A line that has its shape."""
        print(line, file=self.stream, flush=True)
