"""``dressform app``: the web page, by Streamlit."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from dressform.client import DEFAULT_URL
from dressform.commands import Connect
from dressform.commands.console import Console
from dressform.commands.exits import FAILED

EXAMPLES = """
  dressform app
  dressform app --port 8600 --server http://127.0.0.1:8000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--port", metavar="N", type=int, default=8501, help="the page's port on this machine; 8501")
    parser.add_argument(
        "--server",
        metavar="URL",
        default=os.environ.get("DRESSFORM_URL") or DEFAULT_URL,
        help=f"the server that the page asks; default $DRESSFORM_URL or {DEFAULT_URL}",
    )


def run(options: argparse.Namespace, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Runs the page until it is told to stop."""
    page = _page()
    if page is None or importlib.util.find_spec("streamlit") is None:
        return console.failed("the web page needs more packages: pip install 'dressform[app]'", FAILED)
    words = ["--server.address", "127.0.0.1", "--server.port", str(options.port), "--server.headless", "true"]
    return subprocess.call(
        [sys.executable, "-m", "streamlit", "run", str(page), *words, "--browser.gatherUsageStats", "false"],
        env={**os.environ, "DRESSFORM_URL": options.server},
    )


def _page() -> Path | None:
    folder = importlib.util.find_spec("dressform.app")
    return Path(folder.origin).with_name("page.py") if folder is not None and folder.origin is not None else None
