"""Session fixtures: random pipelines of the tiny size, and their exports. Made anew in each session."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# torch runs the tiny pipelines here; on few, shared cores its threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell ignores for a program in the background (Ctrl-C), or nohup, its children would ignore, too; what it has a
# handler for, they do not. Tests of signals may be started so.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny inpainting pipeline (``tryon: none``) in ``save_pretrained`` layout."""
    from dressform_export import build_random_pipeline

    return build_random_pipeline("tiny", tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="session")
def tiny_tryon_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline whose garment enters by concatenation."""
    from dressform_export import build_random_pipeline

    return build_random_pipeline("tiny", tmp_path_factory.mktemp("source") / "tiny-tryon", tryon="concat")


@pytest.fixture(scope="session")
def tiny_repository(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_source``, exported."""
    return _exported(tiny_source, tmp_path_factory.mktemp("repository") / "tiny")


@pytest.fixture(scope="session")
def tiny_tryon_repository(tiny_tryon_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_tryon_source``, exported."""
    return _exported(tiny_tryon_source, tmp_path_factory.mktemp("repository") / "tiny-tryon")


@pytest.fixture(scope="session")
def colour_parser_repository(tiny_tryon_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_tryon_source``, exported with a parser that reads labels from flat colours (see ``figures``)."""
    from figures import write_colour_parser

    parser = write_colour_parser(tmp_path_factory.mktemp("source") / "parser")
    return _exported(tiny_tryon_source, tmp_path_factory.mktemp("repository") / "colour-parser", str(parser))


@pytest.fixture(scope="session")
def demo_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, exported."""
    from dressform_export.demo import MODEL

    return _exported(MODEL, tmp_path_factory.mktemp("repository") / "demo")


@pytest.fixture(scope="session")
def engines_repository(tiny_tryon_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_tryon_source``, exported for several engines; OpenVINO is its default."""
    from dressform_export import export_pipeline

    out = tmp_path_factory.mktemp("repository") / "engines"
    export_pipeline(tiny_tryon_source, out, engines=["openvino", "onnxruntime", "onnxruntime-fp16", "cuda"])
    return out


def _exported(source: Path, out: Path, parser: str | None = None) -> Path:
    from dressform_export import export_pipeline

    export_pipeline(source, out, parser=parser)
    return out
