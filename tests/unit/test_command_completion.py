"""``dressform completion``, in the real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dressform.__main__ import main

CASES = [
    ("dressform tryo", "tryon"),
    ("dressform tryon --guidance-sc", "--guidance-scale"),
    ("dressform bench step-", "step-overhead"),
    ("dressform serve --http", "--http-port"),
    ("dressform inpaint pho", "photo.jpg"),
    ("dressform batch --output pho", "photo.jpg"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photo.jpg").touch()
    return tmp_path


def script(shell: str, capsys: pytest.CaptureFixture[str], path: Path) -> Path:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize(("line", "completed"), CASES)
def test_bash(folder, capsys, line, completed):
    source = script("bash", capsys, folder / "dressform.bash")
    program = f"""
source {source}
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p dressform | sed 's/.*-F \\([^ ]*\\) .*/\\1/') dressform "${{COMP_WORDS[-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [completed]


@pytest.mark.parametrize(("line", "completed"), CASES)
def test_fish(folder, capsys, line, completed):
    source = script("fish", capsys, folder / "dressform.fish")
    command = ["fish", "--no-config", "-c", f"source {source}; complete -C '{line}'"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert [found.partition("\t")[0] for found in done.stdout.splitlines()] == [completed]


@pytest.mark.parametrize(("line", "completed"), CASES)
def test_zsh(folder, capsys, line, completed):
    script("zsh", capsys, folder / "_dressform")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-f"], {**os.environ, "TERM": "dumb", "PS1": "> "})
    try:
        setup = f"fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; echo set''up"
        _typed(terminal, f"{setup}\n", "setup")
        assert f"{completed} " in _typed(terminal, f"{line}\t", completed)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def _typed(terminal: int, text: str, awaited: str) -> str:
    """What is on the terminal after ``text`` was typed and ``awaited`` came."""
    os.write(terminal, text.encode())
    seen, end = "", time.monotonic() + 60
    while f"{awaited} " not in seen and f"{awaited}\r" not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


def test_it_imports_nothing_heavy():
    code = (
        "import sys\nfrom dressform.__main__ import main\nmain(['completion', 'bash'])\n"
        "heavy = {'torch', 'numpy', 'httpx', 'grpc', 'rich', 'onnxruntime', 'matplotlib', 'locust'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
