"""Exports that the system or the user ends: one sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "dressform_export")
LARGEST_FILE = 300_000
"""Bytes that a file may have, fewer than the smallest graph's."""


def _interruptible() -> None:
    """As from a terminal: what a shell runs in the background, these tests too, ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(tiny_source: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [*COMMAND, str(tiny_source), str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_interruptible) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob(".out.*/text_encoder/1/model.onnx")):
            assert process.poll() is None, "it ended before it was interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    assert error.splitlines()[-1] == "dressform-export: interrupted, nothing was written"
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


def test_a_file_that_cannot_be_written_whole_ends_the_export(tiny_source: Path, tmp_path: Path) -> None:
    command = [*COMMAND, str(tiny_source), str(tmp_path / "out")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, preexec_fn=_limited, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("dressform-export: writing the export failed: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_openvinos_graph_that_cannot_be_written_is_told(tiny_repository: Path, tmp_path: Path) -> None:
    """OpenVINO's writer knows nothing of errno."""
    source, target = tiny_repository / "unet" / "1" / "model.onnx", tmp_path / "unet" / "1" / "model.xml"
    target.parent.mkdir(parents=True)
    program = "import sys, pathlib; from dressform_export.openvino_graph import write_openvino as w; " + (
        "w(*map(pathlib.Path, sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(source), str(target)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_limited,
        check=False,
    )
    assert "ExportError: writing model.xml of unet failed (is the disk full?): " in done.stderr.splitlines()[-1]
