"""The Triton that pip installed (package nvidia-pytriton), made ready to run the Python of this process."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dressform_server.errors import InstallationError, UnsupportedPlatform
from dressform_server.settings import THREADS_VARIABLE

BACKENDS = Path(__file__).parent / "backends"
"""Our Python-based backends: ``<name>/model.py`` is the Triton backend ``<name>``."""

STAGE_MODULES = ("numpy", "PIL", "tokenizers")
"""What the stages import. A backend imports the package of its name too."""

TRACE_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
"""What the stage ``jobs`` imports to send traces."""


def backends() -> frozenset[str]:
    """Triton backends that the embedded server has."""
    return frozenset(folder.parent.name for folder in BACKENDS.glob("*/model.py"))


@dataclass(frozen=True)
class Installation:
    """Where the pip Triton keeps its parts, and the shared library of this Python."""

    triton: Path
    libraries: Path
    libpython: Path

    @classmethod
    def find(cls, backend: str = "onnxruntime", tracing: bool = False) -> Installation:
        """The installation in this Python environment, for leaves of ``backend``, and for traces where they are sent.

        Raises:
            UnsupportedPlatform: not Linux on x86_64, or nvidia-pytriton is not installed.
            InstallationError: Python lacks its shared library, Triton a stub for this Python, or a package is missing.
        """
        system = f"{platform.system()} on {platform.machine()}"
        if system != "Linux on x86_64":
            raise UnsupportedPlatform(f"the embedded Triton runs on Linux on x86_64 alone, and this is {system}")
        package = importlib.util.find_spec("pytriton")
        if package is None or package.origin is None:
            raise UnsupportedPlatform("the embedded Triton is not installed: pip install 'dressform[serve]'")
        folder = Path(package.origin).parent
        found = cls(folder / "tritonserver", folder.parent / "nvidia_pytriton.libs", _libpython())
        for part in (found.binary, found.stub):
            if not part.is_file():
                raise InstallationError(f"{part} is missing: this Triton has no support for Python {_version()}")
        extra = "serve" if backend == "onnxruntime" else f"serve,{backend}"
        extra += ",trace" if tracing else ""
        modules = (*STAGE_MODULES, backend, *(TRACE_MODULES if tracing else ()))
        missing = [name for name in modules if not _importable(name)]
        if missing:
            raise InstallationError(f"cannot import {', '.join(missing)}: pip install 'dressform[{extra}]'")
        return found

    @property
    def binary(self) -> Path:
        """The ``tritonserver`` program."""
        return self.triton / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The program that runs Python models in the running Python's version."""
        return self.triton / "python_backend_stubs" / _version() / "triton_python_backend_stub"

    @property
    def caches(self) -> Path:
        """The folder of Triton's response cache implementations."""
        return self.triton / "caches"

    def fill(self, folder: Path) -> None:
        """Make ``folder/backends`` (for Triton's ``--backend-directory``) and ``folder/python`` (for its stubs)."""
        python = folder / "backends" / "python"
        # Copied (1.4 MB), not linked: Triton refuses a library whose real path is outside its backend's folder.
        shutil.copytree(self.triton / "backends" / "python", python)
        (python / self.stub.name).symlink_to(self.stub)
        for name in backends():
            (folder / "backends" / name).symlink_to(BACKENDS / name)
        _write_virtual_environment(folder / "python")

    def environment(self, folder: Path, threads: int) -> dict[str, str]:
        """The environment of Triton and its stubs: libraries, packages and threads; ``folder`` is what `fill` made."""
        variables = dict(os.environ)
        libraries = [str(self.libraries), str(self.libpython.parent), variables.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = _joined(libraries)
        variables["PATH"] = _joined([str(folder / "python" / "bin"), variables.get("PATH", os.defpath)])
        variables[THREADS_VARIABLE] = str(threads)
        return variables


def _write_virtual_environment(folder: Path) -> None:
    """A virtual environment that sees the packages of this process.

    The stubs run Python isolated: PYTHONPATH, PYTHONHOME and user packages do not reach them. What does is the
    virtual environment of the first ``python3`` on PATH.
    """
    base = Path(sys.base_exec_prefix) / "bin"
    packages = folder / "lib" / f"python{_version()}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n")
    lines = [
        "import sys; sys.dont_write_bytecode = True",  # the repository stays as it was exported
        *(f"import site; site.addsitedir({place!r})" for place in _site_folders()),
        *_package_folders(),
    ]
    (packages / "dressform.pth").write_text("\n".join(lines) + "\n")


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _libpython() -> Path:
    name, folder = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
    candidates = [Path(place) / str(name) for place in (folder, Path(sys.base_prefix) / "lib") if place]
    for candidate in candidates:
        if ".so" in candidate.name and candidate.is_file():
            return candidate
    raise InstallationError(
        f"this Python ({sys.base_prefix}) was built without a shared library, which Triton loads: use a Python that "
        "has one (Debian's, conda's, uv's, the official Docker images', or pyenv with "
        "PYTHON_CONFIGURE_OPTS=--enable-shared)"
    )


def _site_folders() -> list[str]:
    return list(dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]))


def _package_folders() -> list[str]:
    """The folders from which this process imports what the stages need, wherever they are."""
    specs = [importlib.util.find_spec(name) for name in (__name__.partition(".")[0], *STAGE_MODULES, *backends())]
    places = [str(Path(spec.origin).parent.parent) for spec in specs if spec is not None and spec.origin is not None]
    return list(dict.fromkeys(places))


def _joined(folders: Iterable[str]) -> str:
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if folder))
