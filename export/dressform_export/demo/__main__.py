"""Export, serve, dress and repaint: ``make demo``.

The pipeline is the small one that is trained on drawn people (``demo/model``, its card is ``README.md`` there). Nobody
whom it dresses here was in its training. Export and pictures go to a folder (default ``.demo``); a second run uses the
export again while nothing that it was made of has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

import dressform_contract
import dressform_export
from dressform import Client, DressformError
from dressform_export import ExportError
from dressform_export.demo import MODEL, scenes
from dressform_export.progress import Progress
from dressform_export.repository import template_folder
from dressform_server import Server, ServerError


def main(argv: list[str] | None = None) -> int:
    """The ``make demo`` command; 0 if every picture was made."""
    parser = argparse.ArgumentParser(prog="python -m dressform_export.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where export and pictures go")
    folder: Path = parser.parse_args(argv).folder
    try:
        repository = exported(folder)
        for path in pictures(repository, folder):
            print(path)
    except (ExportError, ServerError, DressformError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def exported(folder: Path) -> Path:
    """The demonstration's repository, exported where there is none yet, or one of other code."""
    repository, key = folder / "repository", folder / "made-of"
    fingerprint = made_of()
    if key.is_file() and key.read_text() == fingerprint and repository.is_dir():
        print(f"using the export in {repository}")
        return repository
    from dressform_export import export_pipeline  # torch takes seconds to import

    shutil.rmtree(repository, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    export_pipeline(MODEL, repository, progress=Progress())
    key.write_text(fingerprint)
    return repository


def made_of() -> str:
    """A fingerprint of the code, configurations and weights that an export is made of."""
    digest = hashlib.sha256()
    package = Path(dressform_export.__file__).parent
    files = [
        *template_folder().rglob("*"),
        *package.rglob("*.py"),
        *MODEL.rglob("*"),
        Path(dressform_contract.__file__),
    ]
    for path in sorted(files):
        if path.suffix in (".py", ".pbtxt", ".json", ".txt", ".safetensors"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def pictures(repository: Path, folder: Path) -> Iterator[Path]:
    """Serve ``repository``, ask for all scenes at once, and yield the path of each picture, the sheet of all last."""
    shown = scenes.groups()
    with Server(repository, http_port=0, grpc_port=0, metrics_port=0, log=folder / "triton.log") as server:
        server.wait_ready(120)
        began = time.monotonic()
        with Client(server.grpc_url, timeout=300) as client, ThreadPoolExecutor() as pool:
            work = [(group, [pool.submit(scene.paint, client) for scene in group.scenes]) for group in shown]
            found = [(group, [future.result() for future in futures]) for group, futures in work]
        print(f"{sum(len(group.scenes) for group in shown)} cases: {time.monotonic() - began:.1f} s")
    for group, made in found:
        for scene, images in zip(group.scenes, made):
            yield saved(Image.fromarray(images[-1]), folder / f"{scene.name}.png")
    yield saved(scenes.sheet(found), folder / "sheet.png")


def saved(image: Image.Image, path: Path) -> Path:
    """Write ``image`` and return where."""
    image.save(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
