"""Export, serve, one inpaint and one try-on: ``make demo``.

The pipeline is the exporter's own small random one, so the pictures show that everything works, not what a trained one
paints. Export and pictures go to a folder (default ``.demo``); a second run uses the export again while nothing that it
was made of has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dressform_contract
import dressform_export
from dressform import Client, DressformError
from dressform.options import Options
from dressform_export import ExportError
from dressform_export.demo.pictures import astronaut, sheet, striped_shirt, suit_mask
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
    source, repository, key = folder / "source", folder / "repository", folder / "made-of"
    fingerprint = made_of()
    if key.is_file() and key.read_text() == fingerprint and repository.is_dir():
        print(f"using the export in {repository}")
        return repository
    from dressform_export import build_random_pipeline, export_pipeline  # torch takes seconds to import

    for stale in (source, repository):
        shutil.rmtree(stale, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    build_random_pipeline("tiny", source, tryon="concat")
    export_pipeline(source, repository, progress=Progress())
    key.write_text(fingerprint)
    return repository


def made_of() -> str:
    """A fingerprint of the code and configurations that an export is made of."""
    digest = hashlib.sha256()
    package = Path(dressform_export.__file__).parent
    for path in sorted([*template_folder().rglob("*"), *package.rglob("*.py"), Path(dressform_contract.__file__)]):
        if path.suffix in (".py", ".pbtxt"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def pictures(repository: Path, folder: Path) -> Iterator[Path]:
    """Serve ``repository`` and yield the path of each picture as it is written, a sheet of all last."""
    shown = {"person": astronaut(), "mask": suit_mask(), "garment": striped_shirt()}
    common: Options = {"num_inference_steps": 12, "height": 256, "width": 256, "seed": 7}
    log = folder / "triton.log"
    with Server(repository, http_port=0, grpc_port=0, metrics_port=0, log=log) as server:
        server.wait_ready(120)
        with Client(server.grpc_url, timeout=300) as client:
            person, mask, garment = shown.values()
            with timed("inpaint"):
                shown["inpaint"] = client.inpaint(person, mask, "a red and white striped t-shirt", **common).image
            with timed("tryon"):
                shown["tryon"] = client.tryon(person, garment, mask=mask, **common).image
    shown["sheet"] = sheet(list(shown.values()))
    for name, image in shown.items():
        path = folder / f"{name}.png"
        image.save(path)
        yield path


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
