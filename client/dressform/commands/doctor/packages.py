"""Checks of what is installed: the pip Triton and its libraries, engines, and the versions that were tried together."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import dressform
from dressform.commands.doctor.findings import Finding, fault, note, ok
from dressform_server.errors import InstallationError, UnsupportedPlatform
from dressform_server.installation import Installation

_INSTALL_SERVE = "pip install 'dressform[serve]'"
_LOCK = "requirements.lock"
_CUDA = "CUDAExecutionProvider"
_ENGINES = {"onnxruntime": _INSTALL_SERVE, "openvino": "pip install openvino"}
_ANSWER_SECONDS = 60


def triton() -> Iterator[Finding]:
    """Whether the embedded Triton can be started: libpython, its program, and the libraries that this loads."""
    try:
        found = Installation.find()
    except UnsupportedPlatform as error:
        yield note(
            "Triton", f"{error}; without it this machine is a client", "dressform serve prints what else can be done"
        )
        return
    except InstallationError as error:
        yield fault("Triton", str(error), _INSTALL_SERVE)
        return
    yield ok("libpython", str(found.libpython))
    with tempfile.TemporaryDirectory() as folder:
        environment = found.environment(Path(folder), 1)
        done = subprocess.run(
            [found.binary, "--help"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    said = f"{done.stdout}\n{done.stderr}"
    if "model-repository" not in said:
        reason = next((line for line in said.splitlines() if line.strip()), f"it ended with {done.returncode}")
        yield fault("Triton", f"{found.binary} does not run: {reason}", f"{_INSTALL_SERVE} --force-reinstall")
        return
    yield ok("Triton", f"{found.binary} runs")


def engines(gpu: bool) -> Iterator[Finding]:
    """Which engines can be imported, and whether the GPU is of use to them."""
    for name, install in _ENGINES.items():
        if importlib.util.find_spec(name) is None:
            yield note(name, "not installed", f"to serve with it: {install}")
            continue
        try:
            module = importlib.import_module(name)
        except Exception as error:
            yield fault(name, f"cannot be imported: {error}", f"pip install --force-reinstall {name}")
            continue
        providers = module.get_available_providers() if name == "onnxruntime" else []
        with_providers = f" with {', '.join(providers)}" if providers else ""
        if gpu and providers and _CUDA not in providers:
            yield note(
                name, f"{module.__version__}{with_providers}; the GPU idles", "pip install 'dressform[serve-gpu]'"
            )
        else:
            yield ok(name, f"{module.__version__}{with_providers}")


def versions() -> Finding:
    """Whether what this distribution asks for has the versions that were tried together."""
    lock = _lock()
    if lock is None:
        return fault("versions", "requirements.lock is missing from the installation", "install dressform again")
    tried = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE))
    asked = {_name(requirement) for requirement in metadata.requires("dressform") or ()}
    different = []
    for name in sorted(asked & tried.keys()):
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
        if installed != tried[name]:
            different.append(f"{name} {installed} (tried: {tried[name]})")
    if different:
        mend = f"if something fails: pip install -c {lock} with the extras that you use"
        return note("versions", f"others than were tried together: {', '.join(different)}", mend)
    return ok("versions", f"those that were tried together ({lock})")


def _lock() -> Path | None:
    """The versions that were tried together: package data of an installed wheel, or the checkout's own."""
    package = Path(dressform.__file__).resolve().parent
    return next((path for path in (package / _LOCK, package.parents[1] / _LOCK) if path.is_file()), None)


def _name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()
