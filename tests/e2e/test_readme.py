"""The README's commands and examples run as they stand, and its contract table is the contract's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

import dressform_contract
from dressform import Cancelled, Client
from dressform_server import Server
from e2e.conftest import LONG

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The one fenced code block of ``language`` that has ``containing`` in it."""
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in code]
    return found


@pytest.fixture
def folder(tmp_path: Path, photo: Image.Image, mask: Image.Image, garment: Image.Image) -> Path:
    photo.save(tmp_path / "photo.png")
    mask.save(tmp_path / "mask.png")
    photo.save(tmp_path / "person.jpg")
    garment.save(tmp_path / "shirt.jpg")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(code: str, server: Server) -> str:
    """``code`` with this session's ports."""
    return code.replace("http://127.0.0.1:8000", server.http_url).replace("grpc://127.0.0.1:8001", server.grpc_url)


def test_the_contract_table_is_the_contracts() -> None:
    assert dressform_contract.parameters_table() in README, (
        "run `python -m dressform_contract` and put it in the README"
    )


def test_the_curl_lines(server: Server, folder: Path) -> None:
    assert shutil.which("curl"), "curl is needed"
    assert run(["bash", "-ec", here(block("sh", "inpaint/generate"), server)], folder).strip() == "7"
    assert Image.open(folder / "coat.png").size == Image.open(folder / "photo.png").size


def test_the_python_example(server: Server, folder: Path) -> None:
    out = run([sys.executable, "-c", here(block("python", "client.inpaint"), server)], folder)
    assert out.startswith("[7] [1, ")
    assert Image.open(folder / "coat.png").size == Image.open(folder / "photo.png").size


def test_the_example_of_handles_and_many(server: Server, folder: Path) -> None:
    lines = run([sys.executable, "-c", here(block("python", "tryon_many"), server)], folder).splitlines()
    assert "done 20 20" in lines
    assert sorted(line[0] for line in lines[-2:]) == ["0", "1"]
    assert "1 7" in lines, "the second pair has a mask and a seed"
    assert "mask" in next(line for line in lines[-2:] if line[0] == "0"), "the first needs a parser, which is not here"


def test_the_stand_in_for_diffusers(server: Server, folder: Path) -> None:
    code = here(block("python", "DressformInpaintPipeline"), server)
    code += 'pipeline("a coat", "photo.png", "mask.png", num_inference_steps=2).images[0].save("coat.png")'
    run([sys.executable, "-c", code], folder)
    assert (folder / "coat.png").is_file()


def test_the_commands(server: Server, folder: Path) -> None:
    lines = block("sh", "dressform inpaint").splitlines()
    commands = [line for line in lines if line.startswith(("dressform inpaint", "dressform tryon"))]
    assert len(commands) == 2
    script = "\n".join(f"DRESSFORM_URL={server.grpc_url} {command}" for command in commands)
    printed = run(["bash", "-ec", script], folder)
    assert "coat.png" in printed
    assert (folder / "coat.png").is_file()


def test_the_command_line(server: Server, folder: Path) -> None:
    (folder / "pairs.csv").write_text("person,garment,mask,seed\nperson.jpg,shirt.jpg,mask.png,7\n")
    lines = [line.partition("  #")[0].strip() for line in block("sh", "dressform doctor").splitlines()]
    assert [line.removeprefix('eval "$(').split()[1] for line in lines] == [
        *("doctor", "health", "tryon", "batch"),
        "completion",
    ]
    lines[0] += " --http-port 0 --grpc-port 0 --metrics-port 0"  # another server may have those
    lines[2] += " --mask mask.png"  # this server has no parser
    script = "\n".join(["export DRESSFORM_URL=" + server.grpc_url, *lines])
    printed = run(["bash", "-ec", script], folder)
    assert "no faults" in printed
    assert "person-tryon.png  seed " in printed
    assert (folder / "results/person-shirt.png").is_file()


def test_watching_and_cancelling_by_curl(server: Server, folder: Path, photo: Image.Image, mask: Image.Image) -> None:
    lines = here(block("sh", "generate_stream"), server).splitlines()
    watch, cancel, listing = (line.partition("  #")[0] for line in lines)
    request_id = uuid.uuid4().hex
    with Client(server.grpc_url, timeout=300) as client, ThreadPoolExecutor(1) as pool:
        job = pool.submit(client.inpaint, photo, mask, "a coat", request_id=request_id, **LONG)
        while request_id[:8] not in run(["bash", "-ec", listing], folder):
            assert not job.done()
        run(["bash", "-ec", f"ID={request_id}; {cancel}"], folder)
        with pytest.raises(Cancelled):
            job.result()
    assert '\\"cancelled\\"' in run(["bash", "-ec", f"ID={request_id}; {watch}"], folder)
