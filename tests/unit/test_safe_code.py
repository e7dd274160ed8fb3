"""What a request must never reach: unpickling, a shell, code made of data. Found by reading the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVED = sorted([*(ROOT / "model_repository").rglob("*.py"), *(ROOT / "server").rglob("*.py")])
"""All that runs in a server."""
MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "subprocess", "pty", "ctypes", "torch", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "execv", "execve", "spawnv", "import_module"}
ALLOWED = {
    ("server/dressform_server/process.py", "subprocess"): "starts Triton, with a list of arguments",
    ("server/dressform_server/drain.py", "subprocess"): "runs the repository's drain.py",
    ("server/dressform_server/supervision.py", "subprocess"): "runs the repository's alive.py",
    ("server/dressform_server/installation.py", "system"): "platform.system(): a name",
    ("server/dressform_server/leash.py", "ctypes"): "prctl: Triton dies with its launcher",
    ("server/dressform_server/leash.py", "execv"): "becomes Triton",
    ("server/dressform_server/native.py", "subprocess"): "starts Triton, with a list of arguments",
    ("model_repository/wire.py", "exec"): "pb_utils.InferenceRequest.exec: a call of another model",
}
"""Each with its reason; none is given anything of a request."""


def used(tree: ast.AST) -> set[str]:
    """The names out of ``MODULES`` and ``CALLS`` that a module uses."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            # re.compile and the like are methods of a module that is named.
            named = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
            if not (named and name == "compile"):
                found.add(name)
    return found & (MODULES | CALLS)


def test_nothing_in_a_server_runs_or_unpickles_what_it_is_given() -> None:
    found = {(str(path.relative_to(ROOT)), name) for path in SERVED for name in used(ast.parse(path.read_text()))}
    assert found - ALLOWED.keys() == set()
    assert found == ALLOWED.keys(), "what is allowed and not used any more"


@pytest.mark.parametrize("path", SERVED, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrays_are_read_and_written_without_pickle(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "np.save", "numpy.load", "numpy.save"):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            assert isinstance(given.get("allow_pickle"), ast.Constant), ast.unparse(node)
            assert given["allow_pickle"].value is False  # type: ignore[attr-defined]
        if isinstance(node, ast.keyword) and node.arg == "shell":
            raise AssertionError(f"a shell: {ast.unparse(node)}")
