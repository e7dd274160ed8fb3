"""The wheel, in a clean environment outside the checkout, does export → serve → client by its commands alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


def torch_source() -> list[str]:
    """As in the Makefile: a local wheel folder where one is named, else the CPU build by uv's own choice."""
    folder = os.environ.get("PIP_FIND_LINKS")
    return ["--find-links", folder] if folder else ["--torch-backend", "cpu"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    assert UV is not None
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", out, ROOT], check=True, timeout=300)
    (built,) = out.glob("dressform-*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a clean environment with the wheel and its extras, at the locked versions."""
    assert UV is not None
    environment = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, environment], check=True, timeout=120)
    install = [UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python", *torch_source()]
    requirement = f"dressform[export,serve] @ {wheel.as_uri()}"
    subprocess.run([*install, "-c", ROOT / "requirements.lock", requirement], check=True, timeout=600)
    return environment / "bin"


def test_the_wheel_carries_what_it_needs_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "dressform/py.typed",
        "dressform/requirements.lock",
        "dressform_contract.py",
        "dressform/app/page.py",
        "dressform/app/.streamlit/config.toml",
        "dressform/app/samples/person-1020309.webp",
        "dressform_export/model_repository/denoise/1/model.py",
        "dressform_export/model_repository/wire.py",
        "dressform_export/data/bpe_simple_vocab_16e6.txt.gz",
        "dressform_server/backends/onnxruntime/model.py",
    ):
        assert needed in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


@pytest.fixture(scope="module")
def served(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of ``dressform serve`` on what ``dressform-export`` made, all from the clean environment."""
    folder = tmp_path_factory.mktemp("elsewhere")
    export = commands / "dressform-export"
    subprocess.run([export, "random", "tiny", "source"], cwd=folder, check=True, timeout=120)
    subprocess.run([export, "source", "repository"], cwd=folder, check=True, timeout=300)
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--log-file", "triton.log"]
    process = subprocess.Popen(
        [commands / "dressform", "serve", "repository", *ports],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if ready := re.search(r"ready: .*(grpc://\S+)", line):
                yield ready[1]
                break
        else:
            pytest.fail("".join(lines))
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_export_serve_client_from_the_wheel(
    commands: Path, served: str, photo: Image.Image, mask: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "photo.png")
    mask.save(tmp_path / "mask.png")
    inpaint = [commands / "dressform", "inpaint", "--server", served, "--num-inference-steps", "2", "--seed", "7"]
    done = subprocess.run(
        [*inpaint, "-o", "out.png", "photo.png", "mask.png", "a coat"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "out.png" in done.stdout
    assert Image.open(tmp_path / "out.png").size == photo.size


def test_plain_inpainting_weights_refuse_a_tryon(
    commands: Path, served: str, photo: Image.Image, mask: Image.Image, tmp_path: Path
) -> None:
    for name, image in (("person", photo), ("garment", photo), ("mask", mask)):
        image.save(tmp_path / f"{name}.png")
    tryon = [commands / "dressform", "tryon", "--server", served, "--mask", "mask.png", "person.png", "garment.png"]
    done = subprocess.run(tryon, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "tryon: none" in done.stderr
    assert "Traceback" not in done.stderr
