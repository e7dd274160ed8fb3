"""A closed loop of users, by gRPC and HTTP: ``python -m dressform_bench.load``.

    python -m dressform_bench.load --repository REPOSITORY --headless -u 32 -r 4 -t 10m --out load.jsonl
    python -m dressform_bench.load --grpc grpc://shop:8001 GrpcUser   # one that runs; Locust's page

Every other argument is Locust's own: ``GrpcUser`` or ``HttpUser`` alone, ``-u`` users, ``-r`` of them a second, ``-t``
how long, ``--headless``, or its web page. What users ask for stands in a small YAML file (``--mix``). Distributed, one
process is the master and others do the work, here or on other machines, each with the addresses of the server::

    python -m dressform_bench.load --master --expect-workers 2 --headless -u 32 -r 4 -t 10m --out load.jsonl
    python -m dressform_bench.load --worker --master-host HOST             # twice or more

With ``--repository`` a server of that export is started for the run, and its memory is watched. With ``--out`` the
record of the run (summary, a sample every five seconds, each kind of request) is appended to a file. The exit code is 1
if a request failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from dressform_bench import arguments, results

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Run Locust, and write the record."""
    options, words = _options(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = [] if options.repository is None else served(stack, options, folder / "triton.log")
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--series", str(folder / "series.json")]
        with subprocess.Popen([*command, *words, *addresses]) as locust:
            with suppress(KeyboardInterrupt):  # Locust has heard it too: it ends, and writes what was measured
                locust.wait()
            code = locust.wait()
        if not (folder / "series.json").is_file():  # a worker, or Locust said what is wrong
            return code
        found = json.loads((folder / "series.json").read_text(encoding="utf-8"))
    if not found["summary"]["requests"]:
        print("load: no request was made, so there is nothing to record", file=sys.stderr)
        return code or 1
    settings = {"engine": options.engine, "arguments": words}
    record = {**results.header("load", argv, settings), "model": options.model, **found}
    results.write(record, options.out)
    return code


def _options(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m dressform_bench.load",
        usage="%(prog)s [--repository DIR] [--out FILE.jsonl] [LOCUST'S ARGUMENTS]",
        description=__doc__,
        epilog="Locust's own: python -m locust -f benchmarks/dressform_bench/load/locustfile.py --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--repository", type=Path, metavar="DIR", help="an export to serve for the run")
    parser.add_argument(
        "--engine", help="of the export, default its own default; of a server that runs, for the record"
    )
    parser.add_argument("--model", default="", help="its name in the record; default what the manifest says")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="file that the record is appended to")
    return parser.parse_known_args(argv)


def served(stack: ExitStack, options: argparse.Namespace, log: Path) -> list[str]:
    """The arguments that lead users to a server of the export, which runs as long as ``stack``.

    What ``options`` leave to the export, its manifest says: the engine and the model.
    """
    from dressform_export.manifest import open_manifest
    from dressform_server import Server

    manifest = open_manifest(options.repository)
    options.engine = options.engine or manifest.engine
    manifest.require_engines(options.repository, [options.engine])
    options.model = options.model or manifest.source.id
    server = stack.enter_context(
        Server(options.repository, engine=options.engine, http_port=0, grpc_port=0, metrics_port=0, log=log)
    )
    server.wait_ready(600)
    return ["--grpc", server.grpc_url, "--http", server.http_url, "--server-pid", str(server.pid)]


if __name__ == "__main__":
    sys.exit(arguments.guarded(main))
