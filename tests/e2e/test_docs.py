"""The pages in ``docs/``: every example runs as it stands, in order, and in one folder for each page.

A block is left out only where ``<!-- not run: reason -->`` stands before it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import playwright
import pytest
from PIL import Image

from dressform.app import gallery
from dressform_server import Server

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
COMMANDS = {"python": [sys.executable, "-c"], "sh": ["bash", "-ec"]}
SAYS = {
    "migration": [],
    "operations": ["no faults", "is ready: inpaint, tryon, mask", "dressform_work_seconds", "beat_age_ms"],
    "research": ["onnxruntime-fp16", "unipc 16", "ddim 16"],
    "services": ["show the visitor: ", "done 10 10 ", "preview"],
    "shops": ["2 of 2 done", "done"],
}
"""What the output of each page's examples has in it."""
MAKES = {
    "migration": ["fitted.png", "coat.png"],
    "operations": [],
    "research": ["coat.png", "coat-unipc.png", "repository/report.html"],
    "services": ["fitted.png", "on-shirt.jpg", "on-trousers.jpg", "by-curl.png", "by-node.png", "by-python.png"],
    "shops": ["mask.png", "fitted.png", "outfit.png", "results/person-shirt.webp", "painted/1.png"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A person, two garments, a mask, the examples; and ``node`` where the machine has none of its own."""
    person, shirt, trousers = gallery.PEOPLE[0].path, gallery.GARMENTS[0].path, None
    trousers = next(sample.path for sample in gallery.GARMENTS if sample.path.name.startswith("lower"))
    for name, path in (("person", person), ("shirt", shirt), ("trousers", trousers)):
        with Image.open(path) as image:
            image.convert("RGB").save(tmp_path / f"{name}.jpg", quality=95)
            size = image.size
    with Image.open(tmp_path / "person.jpg") as image:
        size = image.size
    mask = Image.new("L", size, 0)
    mask.paste(255, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] // 2))
    mask.save(tmp_path / "mask.png")
    shutil.copytree(DOCS / "examples", tmp_path / "examples")
    if shutil.which("node") is None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/node").symlink_to(Path(playwright.__file__).parent / "driver/node")
    return tmp_path


def test_every_page_is_known() -> None:
    examples = {page.stem for page in DOCS.glob("*.md") if BLOCK.search(page.read_text())}
    assert examples == SAYS.keys() == MAKES.keys()


@pytest.mark.parametrize("page", SAYS)
def test_a_page(demo_server: Server, folder: Path, page: str) -> None:
    ports = {
        "http://127.0.0.1:8000": demo_server.http_url,
        "grpc://127.0.0.1:8001": demo_server.grpc_url,
        "http://127.0.0.1:8002": demo_server.metrics_url.removesuffix("/metrics"),
    }
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(folder / "bin")]),
        "DRESSFORM_URL": demo_server.http_url,
    }
    said = ""
    for left_out, language, code in BLOCK.findall((DOCS / f"{page}.md").read_text()):
        if left_out:
            continue
        for documented, actual in ports.items():
            code = code.replace(documented, actual)
        done = subprocess.run(
            [*COMMANDS[language], code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        said += done.stdout + done.stderr
    assert [text for text in SAYS[page] if text not in said] == [], said
    assert [name for name in MAKES[page] if not (folder / name).is_file()] == []
