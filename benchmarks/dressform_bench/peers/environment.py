"""An environment of its own for a peer that needs other packages than ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REQUIREMENTS = {"optimum-intel": Path(__file__).with_name("optimum-intel.txt")}
"""What such peers need."""


def python_of(peer: str, folder: Path) -> str:
    """The Python of the environment of ``peer`` in ``folder``, made where it is not there yet.

    Raises:
        RuntimeError: if there is no uv to make it with, or that failed.
    """
    made = folder / f"{peer}.venv"
    if not made.is_dir():
        uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
        if uv is None:
            raise RuntimeError(
                f"uv, which makes its environment, is not there: pip install uv, or --python {peer}=PATH"
            )
        partial = made.with_name(f"{made.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _run([uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(partial)])
        pip = [uv, "pip", "install", "--quiet", "--python", str(partial / "bin" / "python")]
        links = os.environ.get("PIP_FIND_LINKS")
        torch = ["--find-links", links] if links else ["--torch-backend", "cpu"]
        _run([*pip, *torch, "-r", str(REQUIREMENTS[peer])])
        # A pipeline of Stable Diffusion does without it, and beside another build of torch it does not load.
        _run([uv, "pip", "uninstall", "--quiet", "--python", str(partial / "bin" / "python"), "torchvision"])
        partial.rename(made)
    return str((made / "bin" / "python").absolute())


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or 'no word'}")
