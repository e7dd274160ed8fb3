"""``dressform app``: the web page, by Streamlit."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from dressform.client import DEFAULT_URL
from dressform.commands import Connect
from dressform.commands.children import ended
from dressform.commands.console import Console
from dressform.commands.exits import FAILED

EXAMPLES = """
  dressform app
  dressform app --port 8600 --server http://127.0.0.1:8000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--port", metavar="N", type=_port, default=8501, help="the page's port; 8501")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument(
        "--server",
        metavar="URL",
        help=f"the server that the page asks; default $DRESSFORM_URL, server in Streamlit's secrets, or {DEFAULT_URL}",
    )


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Runs the page until it is told to stop."""
    page = _page()
    if page is None or importlib.util.find_spec("streamlit") is None:
        return console.failed("the web page needs more packages: pip install 'dressform[app]'", FAILED)
    words = ["--server.address", options.host, "--server.port", str(options.port), "--server.headless", "true"]
    command = [sys.executable, "-m", "streamlit", "run", str(page), *words, "--browser.gatherUsageStats", "false"]
    return ended(command, {} if options.server is None else {"DRESSFORM_URL": options.server})


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port: there are 1 to 65535")
    return port


def _page() -> Path | None:
    folder = importlib.util.find_spec("dressform.app")
    return Path(folder.origin).with_name("page.py") if folder is not None and folder.origin is not None else None
